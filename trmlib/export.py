"""From records to what is read: Markdown in a notebook, effects as text, tables as PNG and CSV."""

from pathlib import Path

import pandas as pd
from IPython.display import Markdown, display

from trmlib import plots
from trmlib.runs import write_atomically


def say(text):
    """Show text with numbers from records as Markdown."""
    display(Markdown(text))


def show_table(df):
    """Show a frame whole: no cell cut short, no row left out, no row numbers."""
    with pd.option_context("display.max_colwidth", None):
        display({"text/html": df.to_html(index=False, border=0, na_rep="–"), "text/plain": df.to_string(index=False, na_rep="–")}, raw=True)


def save_table(df, name, folder, caption, alt, records, notebook, fig=None):
    """A frame of strings as `name`.csv and, drawn as a table or in the way of `fig`, as PNG and SVG."""
    if fig is None:
        fig, _ = plots.table_figure(df)
    plots.save(fig, name, folder, caption, alt, records, notebook)
    write_atomically(Path(folder) / f"{name}.csv", df.to_csv(index=False).encode())
    return fig


def waits(fig, name, profile, experiment, runs=("*",)):
    """In place of a figure of which nothing is recorded yet: one line that says what trains its runs."""
    plots.plt.close(fig)
    named = " ".join(f'"{experiment}/{r}"' for r in runs)
    say(f"`{name}` waits for its runs: `trm run --profile {profile} {named}`.")


def percent(effect, digits=1):
    """An effect as "−3.2 % [−5.1, −1.3]"; pending as a dash."""
    if effect is None or pd.isna(effect):
        return "–"
    return "{:+.{d}f} % [{:+.{d}f}, {:+.{d}f}]".format(*(100 * v for v in (effect.estimate, effect.low, effect.high)), d=digits).replace(
        "-", "−"
    )
