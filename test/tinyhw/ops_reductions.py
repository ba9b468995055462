"""The op table: reductions, and what runs along an axis."""

from __future__ import annotations

import numpy as np

from test.tinyhw.compare import floats, integers, torch
from test.tinyhw.op_table import F, case, x

# ---- reductions ----
for _name in ("sum", "mean", "prod"):
    case(f"{_name} along 1", lambda t, name=_name: getattr(t, name)(1), x(0.5, 1.5))
    case(f"{_name} along 0", lambda t, name=_name: getattr(t, name)(0), x(0.5, 1.5))
case("sum of all", lambda t: t.sum(), floats(70, 70))
case("sum of integers", lambda t: t.sum(1), integers(5, 300, dtype="int64"), gradient=False)
case("sum of halves", lambda t: t.sum(1), floats(5, 300).astype(np.float16), rtol=2e-3, atol=2e-3)
case("max", lambda t: t.max(1), x(), theirs=lambda t: t.amax(1))
case("min", lambda t: t.min(1), x(), theirs=lambda t: t.amin(1))
case("argmax", lambda t: t.argmax(1), x(), gradient=False,
     theirs=lambda t: t.argmax(1).to(torch.int32))
case("argmin", lambda t: t.argmin(1), x(), gradient=False,
     theirs=lambda t: t.argmin(1).to(torch.int32))
case("any", lambda t: (t > 1.9).any(1), x(), gradient=False)
case("all", lambda t: (t > -1.9).all(1), x(), gradient=False)
case("var", lambda t: t.var(1), x())
case("std", lambda t: t.std(1), x())
case("var_mean", lambda t: t.var_mean(1)[0], x(), theirs=lambda t: torch.var_mean(t, 1)[0])
case("std_mean", lambda t: t.std_mean(1)[1], x(), theirs=lambda t: torch.std_mean(t, 1)[1])
case("softmax", lambda t: t.softmax(1), x(), theirs=lambda t: t.softmax(1))
case("log_softmax", lambda t: t.log_softmax(1), x(), theirs=lambda t: t.log_softmax(1))
case("logsumexp", lambda t: t.logsumexp(1), x())
case("cumsum", lambda t: t.cumsum(1), x())
case("normalize", lambda t: t.normalize(), x(), theirs=lambda t: F.normalize(t))
