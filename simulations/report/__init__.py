"""Reports of runs, the same for virtual time and for the laboratory: one HTML file, one JSON file, PNG on request.

report = Report(scenario="lookup", summary="How fast ...", command="p2pnode simulate lookup", found=recorder)
paths = write_report(folder, report, png=False)
"""

from p2pnode.simulations.report.model import Report, versions
from p2pnode.simulations.report.text import as_text
from p2pnode.simulations.report.writing import as_dict, as_json, require_report_packages, warm_up, write_report

__all__ = ["Report", "as_dict", "as_json", "as_text", "require_report_packages", "versions", "warm_up", "write_report"]
