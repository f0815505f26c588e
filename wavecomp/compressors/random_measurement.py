"""Compressed sensing: random measurements of each chunk, and the sparse recovery that goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavecomp.codes import Chunks, Codes
from wavecomp.compiling import constant_numbers, numbers_are_real
from wavecomp.compressors.counted import CountedCompressor, chunk_codes
from wavecomp.modules import Module
from wavecomp.records import check_count
from wavecomp.wavelets import ChunkTransform


class RandomMeasurementCompressor(CountedCompressor):
    """``count`` fixed random orthonormal measurements of each chunk, channel by channel.

    What is sparse in some basis can be recovered from few of them (Candes, Romberg and Tao, 2006; Donoho, 2006):
    :class:`SparseRecovery` does. A measurement covers the whole chunk, lies in its centre and has no frequency of its
    own: it is given the middle one, 1/4.

    Args:
        count: codes per whole chunk. A short chunk counts as one that goes on in zeros, and has the first of them, in
            proportion.
        seed: of the measurements, which are the same on every machine.
        recovery: how :meth:`expand`, and so an autoencoder, finds the chunk behind its measurements; their transpose
            unless given.
        encoding: a module from Codes to Codes that marks position and frequency, or ``None``.

    Raises:
        ValueError: a count below 1, or above the chunk length; a recovery and an encoding at once.

    Example:
        >>> recovery = SparseRecovery(transform=wc.DWT1d("haar", level=2))
        >>> compressor = RandomMeasurementCompressor(count=8, recovery=recovery)
        >>> chunks = wc.Codes.from_tokens(torch.randn(2, 32, 4)).cut(16)
        >>> codes = compressor(chunks)
        >>> codes.values.shape, compressor.expand(codes, chunks).shape
        (torch.Size([2, 16, 4]), torch.Size([2, 2, 16, 4]))
    """

    def __init__(
        self,
        *,
        count: int,
        seed: int = 0,
        recovery: SparseRecovery | None = None,
        encoding: nn.Module | None = None,
    ) -> None:
        super().__init__(count=count, encoding=encoding)
        if recovery is not None and encoding is not None:
            raise ValueError(
                "encoding goes with no recovery: codes that were marked are measurements no more; give one"
            )
        self.seed = seed
        self.recovery = recovery
        # no buffers: a module that went through half precision and back would measure something else
        self._matrices: dict[tuple[int, int, int, torch.dtype, torch.device], Tensor] = {}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, seed={self.seed}"

    def matrix(self, chunk_length: int, like: Tensor) -> Tensor:
        """``(count, chunk_length)`` with orthonormal rows, in the dtype and on the device of ``like``."""
        self.capacity(chunk_length)
        if not numbers_are_real():
            return self._measurements(chunk_length).to(like)
        key = (chunk_length, self.count, self.seed, like.dtype, like.device)
        if key not in self._matrices:
            with torch.inference_mode(False):
                self._matrices[key] = self._measurements(chunk_length).to(like)
        return self._matrices[key]

    @constant_numbers(torch.float64)
    def _measurements(self, chunk_length: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        drawn = torch.randn(chunk_length, self.count, generator=generator, dtype=torch.float64, device="cpu")
        q, r = torch.linalg.qr(drawn)
        # the factorisation is unique only up to these signs
        return (q * r.diagonal().sign()).T.contiguous()

    def compress(self, chunks: Chunks, values: Tensor) -> Codes:
        index = torch.arange(self.count, device=values.device)
        return chunk_codes(
            chunks,
            self.matrix(values.shape[-2], values) @ values,
            mask=index < self.budget(chunks)[..., None],
            frequency=torch.full_like(index, 0.25, dtype=torch.float32),
        )

    def restore(self, values: Tensor, codes: Codes, chunks: Chunks) -> Tensor:
        """What the recovery finds."""
        matrix = self.matrix(chunks.values.shape[-2], values)
        if self.recovery is None:
            return matrix.T @ values
        return self.recovery(values, matrix, None if chunks.dense else chunks.lengths, ragged=chunks.ragged)


def recover(
    values: Tensor,
    matrix: Tensor,
    transform: ChunkTransform,
    *,
    step: Tensor,
    threshold: Tensor,
    lengths: Tensor | None = None,
    ragged: bool = False,
) -> Tensor:
    r"""Sparse recovery by iterative soft thresholding (ISTA; Daubechies, Defrise and De Mol, 2004).

    .. math:: x \leftarrow W^{-1}\, \operatorname{soft}_{\tau_i}\big(W (x + \eta_i A^\top (y - A x))\big)

    with :math:`\operatorname{soft}_\tau(w) = \operatorname{sign}(w) \max(|w| - \tau, 0)` on the details; approximations
    are not sparse and stay as they are. With an orthogonal transform it minimises half the squared residual plus the
    thresholded sum of the details' magnitudes.

    Args:
        values: ``(batch, chunks, count, dim)``, the measurements y.
        matrix: ``(count, chunk_length)``, what was measured, A.
        transform: the basis in which chunks are sparse, W.
        step, threshold: ``(iterations,)``.
        lengths: ``(batch, chunks)``, tokens in each chunk; all unless given. A short one had its measurements in
            proportion, the others are not read.
        ragged: whether chunks other than the last of a row may be short.

    Returns:
        ``(batch, chunks, chunk_length, dim)``, zero behind each chunk's length.
    """
    count, chunk_length = matrix.shape
    if lengths is not None:
        taken = torch.arange(count, device=values.device) < -(-lengths[..., None] * count // chunk_length)
        values = torch.where(taken[..., None], values, 0)
    x = values.new_zeros(*values.shape[:-2], chunk_length, values.shape[-1])
    for eta, tau in zip(step.unbind(), threshold.unbind()):
        residual = values - matrix @ x
        if lengths is not None:
            residual = residual * taken[..., None]
        bands = transform(x + eta * (matrix.T @ residual), lengths, ragged=ragged)
        shrunk = bands.values.sign() * (bands.values.abs() - tau).relu()
        always = bands.layout.always[..., None]
        x = transform.inverse(bands.replace(values=torch.where(always, bands.values, shrunk)))
    return x


class SparseRecovery(Module):
    """Chunks from random measurements: :func:`recover` with a step and a threshold to learn in each iteration.

    The thresholds start from large to small, for tokens that were normalised (LISTA; Gregor and LeCun, 2010). A last
    iteration has none, so that what comes back has the measurements that it was made of; of a short chunk nearly so,
    since rows that are cut are not quite orthonormal.

    Args:
        transform: the basis in which chunks are sparse, such as :class:`DWT1d` with an orthogonal wavelet.
        iterations: how often the residual is looked at before the last.

    Raises:
        ValueError: no iteration.
    """

    def __init__(self, *, transform: ChunkTransform, iterations: int = 15) -> None:
        super().__init__()
        check_count("iterations", iterations)
        self.transform = transform
        # logarithms, so that learning keeps both positive; with orthonormal rows a step of 1 does not overshoot
        self.log_step = nn.Parameter(torch.zeros(iterations))
        self.log_threshold = nn.Parameter(torch.linspace(1, 1 / iterations, iterations).log())

    def extra_repr(self) -> str:
        return f"iterations={len(self.log_step)}"

    def forward(self, values: Tensor, matrix: Tensor, lengths: Tensor | None = None, *, ragged: bool = False) -> Tensor:
        """Measurements to chunks; shapes as of :func:`recover`."""
        step = F.pad(self.log_step.exp(), (0, 1), value=1.0)
        threshold = F.pad(self.log_threshold.exp(), (0, 1))
        return recover(values, matrix, self.transform, step=step, threshold=threshold, lengths=lengths, ragged=ragged)

    if TYPE_CHECKING:
        __call__ = forward
