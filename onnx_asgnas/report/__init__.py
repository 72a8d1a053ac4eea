"""What came of a run, for people (report.md, report.html) and for programs (report.json)."""

from onnx_asgnas.report.channels import ChannelFate, channel_fates, chosen_by_layer
from onnx_asgnas.report.comparison import comparison_rows
from onnx_asgnas.report.curves import curves_of, watched_groups
from onnx_asgnas.report.fates import Fate, fates_of
from onnx_asgnas.report.files import read_report, write_report
from onnx_asgnas.report.operator_times import OperatorTime, operator_times
from onnx_asgnas.report.run_page import run_page
from onnx_asgnas.report.run_report import NetworkReport, PruneReport, RunReport

__all__ = [
    "ChannelFate",
    "Fate",
    "NetworkReport",
    "OperatorTime",
    "PruneReport",
    "RunReport",
    "channel_fates",
    "chosen_by_layer",
    "comparison_rows",
    "curves_of",
    "fates_of",
    "operator_times",
    "read_report",
    "run_page",
    "watched_groups",
    "write_report",
]
