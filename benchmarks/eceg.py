"""ECEG and CIT against the equations as printed: seconds and saved activations, forward + backward.

    python benchmarks/eceg.py [--json benchmarks/results/eceg.json]

Each pair is timed in one run, taking turns. "saved" is what autograd keeps for the backward, in MiB.
"""

from __future__ import annotations

import common
import literal
import torch

from cfii import CIT, ECEG


def step(function, inputs, parameters):
    """Forward and backward of a mean of all outputs."""
    outputs = function(*inputs)
    torch.autograd.grad(sum(x.mean() for x in outputs), [*inputs, *parameters])


def compare(module, oracle, inputs, repeats, device, with_literal=True):
    module, inputs = module.to(device), [x.to(device).requires_grad_() for x in inputs]
    parameters = list(module.parameters())
    forms = {"cfii": module}
    if with_literal:
        forms["literal"] = lambda *xs: oracle(module, *xs)
    times = common.interleaved(
        {name: lambda f=f: step(f, inputs, parameters) for name, f in forms.items()}, repeats, device
    )
    for name, function in forms.items():
        times[name]["saved_MiB"] = common.saved_bytes(lambda f=function: f(*inputs), parameters) / 2**20
    return times


def main() -> None:
    parser = common.arguments(__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    b, c, size = options.batch, options.channels, options.size
    features = torch.randn(b, c, size, size)

    results = {}
    for n in (9, 117):
        # The literal form at N = 117 would keep 117 copies of a 2C×H×W map; only its growth is of interest.
        results[f"ECEG N={n}"] = compare(
            ECEG(c, n), literal.eceg, [features], options.repeats, options.device, with_literal=n == 9
        )
    results["CIT N=9"] = compare(
        CIT(c), literal.cit, [torch.randn(b, 9, c), features], options.repeats, options.device
    )

    print(f"{b} x {c} x {size} x {size}, float32, {common.machine(options.device)['device']}, forward + backward")
    for name, forms in results.items():
        for form, r in forms.items():
            iqr = f"{1e3 * r['q1_s']:.1f}-{1e3 * r['q3_s']:.1f}"
            print(f"{name:12} {form:8} {1e3 * r['median_s']:9.1f} ms ({iqr}) {r['saved_MiB']:8.1f} MiB saved")
        if "literal" in forms:
            ours, printed = forms["cfii"], forms["literal"]
            print(
                f"{'':12} ratio    {printed['median_s'] / ours['median_s']:9.2f} x faster, "
                f"{printed['saved_MiB'] / ours['saved_MiB']:.2f} x less saved"
            )
    few, many = results["ECEG N=9"]["cfii"], results["ECEG N=117"]["cfii"]
    maps = 4 * b * (117 - 9) * size**2 / 2**20
    print(
        f"ECEG N=9 -> 117: {many['median_s'] / few['median_s']:.2f} x the time, "
        f"+{many['saved_MiB'] - few['saved_MiB']:.1f} MiB saved (the class maps alone: {maps:.1f})"
    )
    common.record(options, results)


if __name__ == "__main__":
    main()
