"""One page that shows a study, or several: its answer, every trial, what was frozen when and what that cost.
It is a single file that needs no network: :mod:`.data` says what it shows, ``page.js`` draws that.
"""

from dbf_ray.reports.page.data import Source, page_data
from dbf_ray.reports.page.html import MADE_BY, page_html, study_page
from dbf_ray.reports.page.runs import Epochs

__all__ = ["MADE_BY", "Epochs", "Source", "page_data", "page_html", "study_page"]
