"""Benchmarks of cmt_aqr for ``tools/benchmark.py``; not part of the installed package.

Each subcommand is a module with ``add_arguments(parser)`` for its own options, and ``run(args)``,
which measures and returns a :class:`.report.Report`. The first line of its docstring is its help.
The other modules are shared.
"""
