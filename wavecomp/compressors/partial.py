"""PartialSynthesis: each chunk at one resolution of its own."""

from __future__ import annotations

from types import NoneType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.bands import Bands
from wavecomp.codes import Chunks, Codes
from wavecomp.compressors.band_weight import check_band_weight
from wavecomp.compressors.compressor import node_counts
from wavecomp.compressors.detail import DetailChannel
from wavecomp.compressors.nodes import NodeCompressor
from wavecomp.compressors.prediction import DetailPredictor
from wavecomp.compressors.pruner import check_filled, check_ratio
from wavecomp.compressors.selection import mean_power
from wavecomp.modules import weight_dtype
from wavecomp.records import at_most, check_level, check_type, without_waiting
from wavecomp.wavelets import DWT1d


class PartialSynthesis(NodeCompressor):
    r"""Each chunk rebuilt up to a level that a learned gate picks: ``ceil(n / 2 ** l)`` codes of one resolution.

    The gate scores the levels l from the power of each band of the chunk, or, given a predictor, from the power of what
    is missed of it where it is guessed from coarser values: a chunk that is well guessed, as what was often read in
    training is, gets few codes, even if it is loud. The controller adds
    :math:`l \log \tau - l^2 / 2`. It starts at :math:`-2 l` times the mean logarithm of the power of the details, so a
    chunk with twice the power is a level or two finer. The level with the highest score is taken, and its share of the
    softmax is a factor that is 1 in value and a gradient to the gate (straight through, Bengio et al., 2013).

    Each level has a range of scores to itself, and at a ratio that is a power of two the threshold comes to rest within
    one. So text that is about as loud everywhere gets as many codes everywhere; what is then gained over a fixed
    resolution is that training came down to it from a finer one (see ``start``). Levels that no chunk is given are not
    learned: a model is of use at ratios about the one that it was trained at.

    Args:
        transform: of two branches.
        target_ratio: tokens per code over all, held by a controller.
        room: slots of a chunk over the mean budget; levels with more codes are not picked.
        start: tau before anything was counted. The less, the longer training begins at the finest level that there is
            room for, some tens of steps; what is learned there is at hand when the ratio is reached.
        predictor: of the details, for chunks to be told apart by what coarser values do not tell of them; ``None``
            for by how loud they are.
        band_weight: a module from Bands to Bands before the synthesis, such as :class:`BandWeight`, or ``None``.
        detail_channel: the details under a code are added to it; ``None`` to lose them.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        TypeError: a transform, predictor or encoding of another kind.
        ValueError: a transform that is no dyadic tree, a predictor of another level, a ratio or room out of range.

    Example:
        >>> partial = PartialSynthesis(transform=wc.DWT1d("haar", level=4), target_ratio=4)
        >>> codes = partial(wc.Codes.from_tokens(torch.randn(2, 64, 8)).cut(32))
        >>> codes.values.shape[1], codes.statistics["picked_level"].shape
        (32, torch.Size([2, 2]))
    """

    def __init__(
        self,
        *,
        transform: DWT1d,
        target_ratio: float,
        room: float = 2.0,
        start: float = 0.02,
        predictor: DetailPredictor | None = None,
        band_weight: nn.Module | None = None,
        detail_channel: DetailChannel | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__(
            transform=transform, target_ratio=target_ratio, room=room, start=start, detail_channel=detail_channel
        )
        check_band_weight(band_weight, transform)
        self.gate = nn.Linear(transform.level + 1, transform.level + 1)
        nn.init.normal_(self.gate.weight, std=0.02)
        nn.init.zeros_(self.gate.bias)
        with torch.no_grad():
            self.gate.weight[:, 1:] -= 2 * torch.arange(transform.level + 1)[:, None] / transform.level
        check_type("predictor", predictor, DetailPredictor, NoneType)
        if predictor is not None:
            check_level("predictor", predictor.level, transform.level)
        self.predictor = predictor
        self.band_weight = band_weight
        check_type("encoding", encoding, nn.Module, NoneType)
        self.encoding = encoding

    def capacity(self, chunk_length: int) -> int:
        check_ratio(self.controller.target_ratio, chunk_length)
        self.transform.check_length(chunk_length)
        coarsest = -(-chunk_length // 2**self.transform.level)
        budget = chunk_length / self.controller.target_ratio
        target = self.controller.target_ratio
        if coarsest > budget:
            highest = at_most(chunk_length / coarsest)
            raise ValueError(
                f"target_ratio={target} leaves {budget:g} codes in a chunk of {chunk_length}, less than the {coarsest} "
                f"of the coarsest level; allowed: up to {highest}, or a deeper level of the transform"
            )
        allowed = node_counts(chunk_length, self.transform.level)
        most = max(self.room * budget, coarsest)
        return check_filled(allowed, most, target_ratio=target, room=self.room, length=chunk_length)

    def forward(self, chunks: Chunks) -> Codes:
        length = chunks.values.shape[-2]
        capacity = self.capacity(length)
        values = F.rms_norm(chunks.values, chunks.values.shape[-1:])
        bands = self.transform(values, None if chunks.dense else chunks.lengths, ragged=chunks.ragged)
        energy = bands.energy().detach()
        if self.band_weight is not None:
            bands = self.band_weight(bands)
        nodes = self.transform.approximations(length, values.device)
        counts = without_waiting(nodes.counts[::-1], dtype=torch.int64, device=values.device)
        approximations = self.transform.inverse_levels(bands)
        told, losses = bands, {}
        if self.predictor is not None:
            told, losses["prediction"] = self.predictor(bands, approximations)
        score = self._scores(told)
        allowed = score.masked_fill(counts > capacity, -torch.inf)
        asked, picked = score.detach().argmax(-1), allowed.detach().argmax(-1)
        share = allowed.softmax(-1).gather(-1, picked[..., None])
        starts = len(nodes) - counts.cumsum(0)  # fine levels come last
        place = torch.arange(capacity, device=values.device)
        index = (starts[picked][..., None] + place).clamp(max=len(nodes) - 1)
        inside = place < counts[picked][..., None]
        kept = self.made(bands, approximations, index)
        codes = chunks.codes(
            kept * (1 + (share - share.detach()))[..., None].to(kept.dtype),
            mask=inside & (bands.lengths[..., None] >= nodes.needs[index]),
            **nodes.take(index),
            index=index,
            losses=losses,
            statistics={
                "band_energy": energy,
                "picked_level": torch.where(bands.lengths > 0, picked, 0),
                # what the level that the gate asks for would have beyond the one that there is room for
                "overflow": -(-bands.lengths // 2**asked) - -(-bands.lengths // 2**picked),
            },
        )
        return codes if self.encoding is None else self.encoding(codes)

    def _scores(self, bands: Bands) -> Tensor:
        """``(batch, chunks, level + 1)``, one for each level, the finest first."""
        levels = torch.arange(self.transform.level + 1, device=bands.values.device)
        # the values have their gradient through the codes; the factor's is the gate's own
        power = mean_power(bands, bands.layout.row, len(levels)).detach()
        score = self.gate((power + 1e-6).log().to(weight_dtype(self.gate, bands.values))).float()
        # beside the straight line that the controller turns, a parabola, or only the outermost levels could win
        return score + self.controller.log_threshold * levels - 0.5 * levels.square()
