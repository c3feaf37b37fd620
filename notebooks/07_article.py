# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: "1.3"
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · The article
#
# Fills `article/template.md` with values from the records and writes `article/article.md`. A name in the template that no
# record gives is an error, and so is a value that the template does not use.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"
article = "../article"

# %%
from pathlib import Path

from IPython.display import Markdown

from trmlib.experiments import masked_report as report
from trmlib.export import fill
from trmlib.runs import Store, write_atomically
from trmlib.tables import frame

values = report.article_values(frame(Store(), "masked", profile), profile)
text = fill(Path("../article/template.md").read_text(), values)
write_atomically(Path(article) / "article.md", text.encode())
Markdown(text)
