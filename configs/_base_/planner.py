"""A planner beside a frozen detector."""

_base_ = './frozen_detector.py'

planner = dict(type='ActionQueryHead', num_queries=16)
