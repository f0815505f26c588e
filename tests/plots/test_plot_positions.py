import numpy as np
import pytest
import torch

import wavecomp as wc


def codes_of(*, dim=8, rows=2):
    compressor = wc.WaveletCompressor(transform=wc.DWT1d("haar", level=2), pruner=wc.KeepLowpass(6))
    lengths = torch.tensor([48, 20, 0])[:rows]
    return compressor(wc.Codes.from_tokens(torch.randn(rows, 48, dim), lengths).cut(16))


ENCODINGS = {
    "frequency": lambda: wc.PositionFrequencyEncoding(8),
    "dyadic": lambda: wc.DyadicPositionCode(8, chunk_length=16, bits=4),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_the_image_is_what_the_encoding_adds_and_the_other_their_cosines(kind):
    encoding, codes = ENCODINGS[kind](), codes_of()
    empty = codes.replace(values=torch.zeros_like(codes.values))
    for row in (0, 1):
        marks = encoding(empty).values[row, codes.mask[row]].detach()
        figure = wc.plots.plot_position_code(encoding, codes, row=row)
        left, right = (np.asarray(ax.images[0].get_array()) for ax in figure.axes[:2])
        np.testing.assert_allclose(left, marks, atol=1e-6)
        cosines = torch.nn.functional.cosine_similarity(marks[:, None], marks[None], dim=-1)
        np.testing.assert_allclose(right, cosines, atol=1e-5)
        assert len(left) == int(codes.mask[row].sum())
    assert figure.axes[0].images[0].get_clim() == (-abs(marks).max(), abs(marks).max())
    assert figure.axes[1].images[0].get_clim() == (-1, 1)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("dimension", "code")
    assert [ax.get_ylabel() for ax in figure.axes[2:]] == ["added value", "cosine"]


def test_lines_stand_between_chunks():
    figure = wc.plots.plot_position_code(ENCODINGS["frequency"](), codes_of())
    assert [line.get_ydata()[0] for line in figure.axes[0].lines] == [5.5, 11.5]


def test_the_values_of_the_codes_and_their_width_do_not_matter():
    encoding = ENCODINGS["frequency"]()
    pictures = [wc.plots.plot_position_code(encoding, codes_of(dim=dim)).axes[0].images[0] for dim in (8, 4)]
    assert np.array_equal(pictures[0].get_array(), pictures[1].get_array())


def test_what_cannot_be_drawn_is_said_in_one_line():
    plot, codes, encoding = wc.plots.plot_position_code, codes_of(rows=3), wc.PositionFrequencyEncoding(8)
    rotary = wc.RotaryPositionFrequency(8)
    allowed = "allowed: PositionFrequencyEncoding or DyadicPositionCode"
    for call, message in (
        (lambda: plot(rotary, codes), f"encoding has type RotaryPositionFrequency; {allowed}"),
        (lambda: plot(encoding, codes.values), "codes has type Tensor; allowed: Codes"),
        (lambda: plot(encoding, codes, row=3), "row=3 is out of range; allowed: 0 to 2"),
        (lambda: plot(encoding, codes, row=2), "row=2 holds no codes; allowed: a row with some"),
    ):
        with pytest.raises(TypeError if "has type" in message else ValueError) as error:
            call()
        assert message in str(error.value) and "\n" not in str(error.value)
