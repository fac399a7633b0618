"""What ``tools/benchmark.py`` measures: one module for each subcommand, beside what they share.

Such a module has ``add_arguments(parser)`` for what the tool's own options (device, threads,
rounds, warm-up) leave open, and ``run(args)``, which measures and returns a
:class:`.report.Report`. The tool shows the first line of its docstring as help.
"""
