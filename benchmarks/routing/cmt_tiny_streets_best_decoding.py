"""The tiny CMT for the streets, with the best of three decodings for each query.

For `tools/test_robustness.py`, beside the same weights under `cmt_tiny_streets.py`.
"""

_base_ = '../../configs/cmt/cmt_tiny_streets.py'

custom_imports = dict(
    imports=['projects.cmt_aqr', 'benchmarks.routing.best_decoding'], allow_failed_imports=False
)
model = dict(type='BestDecodingDetector')
