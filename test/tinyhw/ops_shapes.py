"""The op table: movement, makers, indexing."""

from __future__ import annotations

from test.tinyhw.compare import floats, torch
from test.tinyhw.op_table import F, case, variant, x
from tinyhw import Tensor

# ---- shapes ----
case("reshape", lambda t: t.reshape(37, 5) * 2, x())
case("view", lambda t: t.view(1, 185) * 2, x())
case("permute", lambda t: t.permute(2, 0, 1) * 2, floats(3, 4, 5))
case("transpose", lambda t: t.transpose(0, 1) * 2, x())
case("T", lambda t: t.T * 2, x())
case("expand", lambda t: t.expand(5, 37) * 2, floats(1, 37))
case("flip", lambda t: t.flip(1) * 2, x(), theirs=lambda t: t.flip((1,)) * 2)
case("flatten", lambda t: t.flatten() * 2, floats(3, 4, 5))
case("unflatten", lambda t: t.unflatten(1, (4, 5)) * 2, floats(3, 20))
case("squeeze", lambda t: t.squeeze(1) * 2, floats(3, 1, 5))
case("unsqueeze", lambda t: t.unsqueeze(1) * 2, x())
case("pad", lambda t: t.pad(((1, 2), (0, 3))) * 2, x(),
     theirs=lambda t: F.pad(t, (0, 3, 1, 2)) * 2)
case("shrink", lambda t: t.shrink(((1, 4), (2, 30))) * 2, x(), theirs=lambda t: t[1:4, 2:30] * 2)
case("roll", lambda t: t.roll(3, 1) * 2, x())
case("repeat", lambda t: t.repeat(2, 3) * 2, floats(3, 5))
case("repeat_interleave", lambda t: t.repeat_interleave(3, 1) * 2, floats(3, 5))
case("split", lambda t: t.split(20, 1)[1] * 2, x())
case("chunk", lambda t: t.chunk(2, 1)[0] * 2, x())
case("cat", lambda a, b: a.cat(b, dim=1) * 2, x(), x(seed=1),
     theirs=lambda a, b: torch.cat((a, b), 1) * 2)
case("stack", lambda a, b: a.stack(b, dim=1) * 2, x(), x(seed=1),
     theirs=lambda a, b: torch.stack((a, b), 1) * 2)
variant("roll of all", lambda t: t.roll(5) * 2, x())
variant("squeeze of several", lambda t: t.squeeze((0, 2)) * 2, floats(1, 3, 1, 5))
case("unfold", lambda t: t.unfold(1, 5, 3) * 2, x())
variant("unfold without overlap", lambda t: t.unfold(0, 2, 2) * 2, x())
variant("unfold to the end", lambda t: t.unfold(-1, 37, 1) * 2, x())
case("diagonal", lambda t: t.diagonal(1, 0, 2) * 2, floats(5, 3, 7))
for _offset in (-2, 0, 9):
    variant(f"diagonal {_offset}", lambda t, o=_offset: t.diagonal(o) * 2, floats(5, 7))
case("diag", lambda t: t.diag(1) * 2, floats(7))
variant("diag of a matrix", lambda t: t.diag() * 2, x())
case("diag_embed", lambda t: t.diag_embed(-1) * 2, floats(3, 7))
variant("diag_embed in front", lambda t: t.diag_embed(1, 0, -1) * 2, floats(3, 7))
case("diagflat", lambda t: t.diagflat() * 2, floats(2, 3))
case("meshgrid", lambda a, b: a.meshgrid(b), floats(5), floats(7, seed=1),
     theirs=lambda a, b: torch.meshgrid(a, b, indexing="ij"))
variant("meshgrid xy", lambda a, b, c: a.meshgrid(b, c, indexing="xy"),
        floats(2), floats(3, seed=1), floats(4, seed=2),
        theirs=lambda a, b, c: torch.meshgrid(a, b, c, indexing="xy"))
case("pad_to", lambda t: t.pad_to(7, 40) * 2, x(), theirs=lambda t: F.pad(t, (0, 3, 0, 2)) * 2)
case("shrink_to", lambda t: t.shrink_to(3, None) * 2, x(), theirs=lambda t: t[:3] * 2)
case("narrow", lambda t: t.narrow(1, 3, 20) * 2, x())
case("select", lambda t: t.select(1, -3) * 2, x())
case("unbind", lambda t: [p * 2 for p in t.unbind(1)], floats(5, 3))
case("tensor_split", lambda t: [p * 2 for p in t.tensor_split(3, 1)], x())
variant("tensor_split at", lambda t: [p * 2 for p in t.tensor_split((3, 9, -2), 1)], x())
case("movedim", lambda t: t.movedim((0, 1), (-1, 0)) * 2, floats(3, 4, 5))
case("rot90", lambda t: t.rot90(1, (0, 1)) * 2, x())
variant("rot90 thrice", lambda t: t.rot90(3, (1, 0)) * 2, x())
case("rearrange", lambda t: t.rearrange("b (h w) c -> (b c) w h", h=3) * 2, floats(2, 12, 5),
     theirs=lambda t: t.reshape(2, 3, 4, 5).permute(0, 3, 2, 1).reshape(10, 4, 3) * 2)
variant("rearrange with dots", lambda t: t.rearrange("a ... -> (...) 1 a") * 2, floats(2, 3, 5),
        theirs=lambda t: t.permute(1, 2, 0).reshape(15, 1, 2) * 2)
for _mode in ("reflect", "replicate", "circular"):
    variant(f"pad {_mode}", lambda t, m=_mode: t.pad((3, 2), mode=m) * 2, x(),
            theirs=lambda t, m=_mode: F.pad(t, (3, 2), m) * 2)
variant("pad with a value", lambda t: t.pad((1, 2, 3, 0), value=5.0) * 2, x(),
        theirs=lambda t: F.pad(t, (1, 2, 3, 0), value=5.0) * 2)
case("tril", lambda t: t.tril(1) * 2, x())
case("triu", lambda t: t.triu(-1) * 2, x())
case("contiguous", lambda t: t.T.contiguous() * 2, x())

# ---- made on the device ----
_D = floats(1)
case("arange", lambda t: t * Tensor.arange(37, device=t.device), _D,
     theirs=lambda t: t * torch.arange(37), gradient=False)
case("linspace", lambda t: t * Tensor.linspace(1, 2, 37, device=t.device), _D,
     theirs=lambda t: t * torch.linspace(1, 2, 37), gradient=False)
variant("logspace", lambda t: t * Tensor.logspace(0, 1, 7, 2, device=t.device), _D,
        theirs=lambda t: t * torch.logspace(0, 1, 7, 2), gradient=False)
for _name in ("tril_indices", "triu_indices"):
    variant(_name,
            lambda t, n=_name: t.round().int() + getattr(Tensor, n)(4, 6, 1, device=t.device), _D,
            theirs=lambda t, n=_name: t.round().int() + getattr(torch, n)(4, 6, 1).int(),
            gradient=False)
variant("arange down", lambda t: t * Tensor.arange(9, -4, -2.5, device=t.device), _D,
        theirs=lambda t: t * torch.arange(9, -4, -2.5), gradient=False)
variant("eye of a rectangle", lambda t: t * Tensor.eye(3, 5, device=t.device), _D,
        theirs=lambda t: t * torch.eye(3, 5), gradient=False)
case("eye", lambda t: t * Tensor.eye(7, device=t.device), _D,
     theirs=lambda t: t * torch.eye(7), gradient=False)
case("full", lambda t: t + Tensor.full((3, 5), 2.5, device=t.device), _D,
     theirs=lambda t: t + torch.full((3, 5), 2.5), gradient=False)
case("zeros_like and ones_like", lambda t: t.zeros_like() + t.ones_like() * 3, x(),
     theirs=lambda t: torch.zeros_like(t) + torch.ones_like(t) * 3, gradient=False)
case("full_like", lambda t: t.full_like(4) * t, x(),
     theirs=lambda t: torch.full_like(t, 4) * t, gradient=False)
