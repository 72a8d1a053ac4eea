"""Which operators can be written as PyTorch code: one small function for each, in families under `torch_ops`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from onnx_asgnas.export.code import Step
from onnx_asgnas.export.site import Site

Writer = Callable[[Site], Step]

_WRITERS: defaultdict[tuple[str, str], list[tuple[int, Writer]]] = defaultdict(list)


def writes(*op_types: str, since_version: int = 1, domain: str = "") -> Callable[[Writer], Writer]:
    """Declare operators; the newest writer that is not newer than the model's operator set counts."""

    def add(writer: Writer) -> Writer:
        for op_type in op_types:
            _WRITERS[domain, op_type].append((since_version, writer))
            _WRITERS[domain, op_type].sort(key=lambda entry: entry[0])
        return writer

    return add


def writer_of(site: Site) -> Writer | None:
    """The function that writes a node; None where there is none."""
    domain = "" if site.node.domain == "ai.onnx" else site.node.domain
    fitting = [writer for since, writer in _WRITERS.get((domain, site.node.op_type), ()) if since <= site.version]
    return fitting[-1] if fitting else None


def written_operators() -> Sequence[str]:
    """The names of all operators that can be written, those of other domains with theirs."""
    return sorted(f"{domain}.{op_type}" if domain else op_type for domain, op_type in _WRITERS)
