default_scope = 'mmdet3d'
custom_imports = dict(imports=['projects.cmt_aqr'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook', interval=1, max_keep_ckpts=2, greater_keys=['mAP', 'NDS']
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='Det3DVisualizationHook'),  # draws nothing unless draw=True
)
# A config that adds hooks keeps these: custom_hooks = [*_base_.custom_hooks, dict(type=...)].
custom_hooks = [
    dict(type='DataFitHook'),
    dict(type='FiniteLossHook'),
    dict(type='FiniteGradientHook'),
    dict(type='FreezeAuditHook'),
    dict(type='BiasScaleHook'),
    dict(type='RoutingLogHook'),
    dict(type='RunInfoHook'),
    dict(type='DrawIndexHook'),
    dict(type='ScoreNamesHook'),
]
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(opencv_num_threads=0),
    # Seconds that a process waits for the others. One process scores, and the official evaluation
    # takes it more than NCCL's ten minutes for nuScenes' 6,019 frames.
    dist_cfg=dict(backend='nccl', timeout=7200),
)
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
visualizer = dict(type='FrameVisualizer', vis_backends=[dict(type='LocalVisBackend')])
load_from = None
resume = False

val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
