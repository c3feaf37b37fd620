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
# Fills `article/template.md` with values from the records of all chapters and from the ledger, and writes `article/article.md` and
# `article/article.html`. A name in the template that no record gives is an error. What has no record yet reads as pending or open.

# %% tags=["parameters"]
profile = "full"
figures = "../figures"
article = "../article"

# %%
from pathlib import Path

from IPython.display import Markdown

from trmlib.article import fill, page, values
from trmlib.runs import Store, write_atomically

text = fill(Path("../article/template.md").read_text(), values(Store(), profile))
write_atomically(Path(article) / "article.md", text.encode())
write_atomically(Path(article) / "article.html", page(text, figures).encode())
Markdown(text)
