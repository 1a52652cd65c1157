"""The groups of settings that make up `TrainConfig`, so that a signature shows which settings a function reads."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

MODULES = ("backbone", "support_encoder", "scs_fusion", "detection_head")
"""The parts of the detector, in the order data flows through them."""

MULTIPLIERS = {
    "backbone": "backbone_lr_mult",
    "support_encoder": "support_encoder_lr_mult",
    "scs_fusion": "fusion_lr_mult",
    "detection_head": "head_lr_mult",
}
"""Module name -> the setting that multiplies its learning rate."""

GRADIENT_SCALES = {
    "backbone": "grad_scale_backbone",
    "support_encoder": "grad_scale_support_encoder",
    "scs_fusion": "grad_scale_fusion",
    "detection_head": "grad_scale_head",
}
"""Module name -> the setting that multiplies its gradient."""


class Group(BaseModel):
    """Base of all groups: frozen, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


class DataConfig(Group):
    """The dataset, and how batches or episodes are drawn from it."""

    dataset: Literal["openmoji", "yolo", "coco", "refdet"] = "openmoji"
    """Source of images: `openmoji` (embedded, nothing to download), `yolo` (an Ultralytics data.yaml), `coco`
    (instances_*.json) or `refdet` (videos, each with photos of its object)."""
    data_root: Path | None = None
    """Folder of the dataset, or its data.yaml; not used by `openmoji`."""
    base_classes: tuple[str, ...] = ()
    """Names of the classes to train on; empty: all that are not novel."""
    novel_classes: tuple[str, ...] = ()
    """Names of the classes never trained on; empty: those of `split_file`, or a seeded sample of all."""
    split_file: Path | None = None
    """YAML file with the class names of the splits: `val` and `test`, or `novel`, and optionally `base`."""
    novel_fraction: float = Field(0.25, gt=0, lt=1)
    """Fraction of the classes that a seeded split makes novel."""
    split_seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the class split and of the choice of the K shots; the same for all runs that are compared."""
    k_shot: int = Field(8, ge=1)
    """Annotated instances per class that serve as supports; of novel classes also what stage 3 learns from."""
    shots_dir: Path | None = None
    """Folder of K-shot files (full_box_{K}shot_{class}_trainval.json, `coco` only); None: they are drawn."""
    novel_split: Literal["val", "test"] = "val"
    """Novel classes that evaluation and stage 3 see: `val` selects, `test` reports."""
    frames_per_video: int = Field(64, ge=2)
    """Annotated frames used of every video (`refdet`), evenly spaced; a quarter as many background frames are added."""
    cache_dir: Path | None = None
    """Folder of decoded images shared by all runs; default $FSDET_CACHE or ~/.cache/fsdet."""
    cache_limit_gb: float = Field(50.0, gt=0)
    """Size limit of `cache_dir` in 10^9 bytes; the least recently used entries are removed."""
    image_size: int = Field(128, ge=64, le=2048, multiple_of=32)
    """Side of a query image in pixels; a multiple of 32."""
    support_size: int = Field(48, ge=32, le=1024)
    """Side of a support crop in pixels."""
    train_scenes: int = Field(4096, ge=16)
    """Number of training images composed for the embedded data."""
    n_way: int = Field(2, ge=1, le=64)
    """Classes in an episode; with 1 the swap control is not available, which needs another class's supports."""
    n_query: int = Field(4, ge=1)
    """Query images per class in an episode."""
    n_shot: int = Field(3, ge=1, le=32)
    """Support crops per class."""
    n_episodes: int = Field(100, ge=1)
    """Episodes per epoch (stages 2 and 3); batches per epoch (stage 1)."""
    batch_size: int = Field(4, ge=1)
    """Episodes (stages 2 and 3) or images (stage 1) in one forward pass."""
    eval_episodes: int = Field(40, ge=1)
    """Fixed episodes of each evaluation, the same for every run with the same data settings."""
    early_eval_episodes: int = Field(8, ge=1)
    """Episodes of the evaluations after `early_eval_epochs`: the first ones of the `eval_episodes`."""
    eval_draws: int = Field(3, ge=1)
    """Sets of `eval_episodes` other episodes that the last evaluation of a run averages over."""
    final_split: Literal["val", "test"] | None = None
    """Novel classes of the last evaluation; None: `novel_split`."""
    num_workers: int = Field(0, ge=0)
    """Processes that build the decoded cache; 0 builds it in the main process."""


class ModelConfig(Group):
    """The detector's parts."""

    yolo_weights: Path | None = None
    """Ultralytics YOLOv8n `.pt` file whose backbone is loaded before training; None starts from random weights."""
    support_encoder: str = "small_conv"
    """`small_conv` (embedded) or any timm model name, e.g. vit_small_patch14_dinov2.lvd142m."""
    support_pretrained: bool = True
    """Load timm's pretrained weights, from `cache_dir`/weights or the hub; `small_conv` has none."""
    embed_dim: int = Field(64, ge=16, le=1024, multiple_of=16)
    """Channels of the fused features, of the prototypes and of the classification embedding."""
    reg_max: int = Field(16, ge=4, le=64)
    """Bins of the box-distance distribution (DFL) per side."""


class LossConfig(Group):
    """The loss terms and their weights."""

    bbox_loss: Literal["wiou_v1", "wiou_v2", "wiou_v3", "ciou"] = "wiou_v3"
    """Box regression loss."""
    bbox_weight: float = Field(7.5, ge=0)
    """Weight of the box loss."""
    cls_weight: float = Field(0.5, ge=0)
    """Weight of the classification loss (BCE over all anchor points)."""
    dfl_weight: float = Field(0.5, ge=0)
    """Weight of the distribution focal loss, the mean over the four sides, in nats."""
    supcon_weight: float = Field(1.0, ge=0)
    """Weight of the supervised contrastive loss (stages 2 and 3)."""
    supcon_temperature: float = Field(0.1, gt=0)
    """Temperature of the supervised contrastive loss."""
    triplet_weight: float = Field(0.2, ge=0)
    """Weight of the triplet loss (stage 3)."""
    triplet_margin: float = Field(0.3, gt=0)
    """Margin of the triplet loss; distances are 1 - cosine."""
    base_weight: float = Field(1.0, ge=0)
    """Weight of the base-class cross-entropy that shapes the embeddings (stage 1 only)."""


class OptimConfig(Group):
    """The optimiser, its learning-rate schedule and the multiplier of each module."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """`adamw` (betas 0.9 and 0.999), or `sgd` with momentum 0.9, without Nesterov; groups and schedule are the same."""
    lr: float = Field(1e-4, gt=0)
    """Learning rate before multipliers, at the top of the schedule."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of matrices and kernels: decoupled (`adamw`), or added to the gradient (`sgd`)."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Fraction of all steps over which the learning rate rises linearly."""
    final_lr_fraction: float = Field(0.01, ge=0, le=1)
    """The cosine ends at this fraction of the learning rate; 1 keeps it constant."""
    gradient_accumulation: int = Field(4, ge=1)
    """Forward passes per optimiser step."""
    backbone_lr_mult: float = Field(0.5, ge=0)
    """Learning-rate multiplier of `backbone`; 0 freezes it."""
    support_encoder_lr_mult: float = Field(0.1, ge=0)
    """Learning-rate multiplier of `support_encoder`; 0 freezes its trunk, so that each crop is encoded only once, and
    lets its projection learn at the head's rate."""
    fusion_lr_mult: float = Field(2.0, ge=0)
    """Learning-rate multiplier of `scs_fusion`; 0 freezes it."""
    head_lr_mult: float = Field(2.0, ge=0)
    """Learning-rate multiplier of `detection_head`; 0 freezes it."""

    @property
    def lr_mults(self) -> dict[str, float]:
        """Module name -> learning-rate multiplier."""
        return {module: getattr(self, field) for module, field in MULTIPLIERS.items()}


class GradientConfig(Group):
    """Clipping, and the rules by which a run counts as exploded (see `fsdet.health.stability`)."""

    gradient_clip_mode: Literal["norm", "agc", "none", "update", "zclip", "adagc"] = "norm"
    """`norm` clips the global norm, `agc` each unit's gradient by its weight norm, `none` nothing, `update` AdamW's
    update of each tensor by the root mean square of g²/v, `zclip` a global norm far above its running mean, `adagc`
    each tensor's gradient by the running mean of its own norm."""
    gradient_clip_norm: float = Field(10.0, ge=0)
    """Clip the global gradient norm to this value (mode `norm`, and `adagc` while it warms up); 0 = off."""
    agc_clip_factor: float = Field(0.01, gt=0)
    """Largest ratio of a unit's gradient norm to its weight norm (mode `agc`)."""
    update_clip_rms: float = Field(1.0, gt=0)
    """Root mean square of g²/v above which the update of a tensor is scaled down (mode `update`)."""
    zclip_z: float = Field(2.5, gt=0)
    """Standard deviations above the running mean from which a norm is a spike (mode `zclip`)."""
    zclip_decay: float = Field(0.97, gt=0, lt=1)
    """Decay of the running mean and variance of the norm (mode `zclip`)."""
    zclip_warmup: int = Field(25, ge=2)
    """Steps that give the first mean and variance; none of them is clipped (mode `zclip`)."""
    adagc_factor: float = Field(1.05, gt=0)
    """Largest ratio of a tensor's gradient norm to its running mean (mode `adagc`)."""
    adagc_decay: float = Field(0.98, gt=0, lt=1)
    """Decay of the running mean of a tensor's norm after clipping (mode `adagc`)."""
    adagc_warmup: int = Field(100, ge=1)
    """Steps that clip the global norm instead, and record the smallest norm of each tensor (mode `adagc`)."""
    grad_scale_backbone: float = Field(1.0, gt=0)
    """Multiplies the gradient of `backbone` before norms are measured and clipped. AdamW ignores a constant factor, so
    under it this only shifts a module's part in the clip norm; the same holds for the next three."""
    grad_scale_support_encoder: float = Field(1.0, gt=0)
    """Multiplies the gradient of `support_encoder`."""
    grad_scale_fusion: float = Field(1.0, gt=0)
    """Multiplies the gradient of `scs_fusion`."""
    grad_scale_head: float = Field(1.0, gt=0)
    """Multiplies the gradient of `detection_head`."""
    share_interval: int | None = Field(250, ge=1)
    """Steps between two measurements of the gradient of each loss term and each scale; None: no measurement."""
    explosion_norm: float | None = Field(None, gt=0)
    """Absolute ceiling of the gradient norm before clipping; None: the larger of 1e4 and ten times the reference."""
    explosion_ratio: float = Field(4.0, gt=1)
    """A norm above this many times the reference counts towards an explosion."""
    explosion_patience: int = Field(3, ge=1)
    """Consecutive steps for which a rule must hold before the run counts as exploded; for `explosion_ratio` steps of
    the last `explosion_window`."""
    explosion_window: int = Field(10, ge=1)
    """Number of most recent steps over which `explosion_ratio` is counted, since an explosion comes in spikes."""
    explosion_warmup: int = Field(20, ge=1)
    """Steps before the loss can count as diverged."""
    explosion_reference: float | None = Field(None, gt=0)
    """Healthy gradient norm to compare with; None: it is measured before the first update."""
    explosion_loss_ratio: float = Field(3.0, gt=1)
    """A loss whose running median exceeds its best running median by this factor has diverged."""
    stop_on_explosion: bool = True
    """End the run at an explosion; False only records it."""

    @property
    def grad_scales(self) -> dict[str, float]:
        """Module name -> factor of its gradient."""
        return {module: getattr(self, field) for module, field in GRADIENT_SCALES.items()}


Band = tuple[float, float]


class HealthConfig(Group):
    """Bands of the health report: inside or below passes, above warns; see `fsdet.health.checklist`."""

    health_norm: Band = (5.0, 15.0)
    """Gradient norm before clipping, median of the last steps."""
    health_total: Band = (5.0, 8.0)
    """Total loss."""
    health_bbox: Band = (0.2, 0.8)
    """Box loss before its weight."""
    health_cls: Band = (0.3, 0.5)
    """Classification loss before its weight."""
    health_dfl: Band = (1.0, 1.5)
    """DFL in nats per side; uniform costs ln(reg_max), 2.77 for 16 bins."""
    health_supcon: Band = (0.4, 0.6)
    """Supervised contrastive loss before its weight."""
    health_update: Band = (1e-5, 1e-2)
    """Update ratio of a module: the norm of a step over the norm of the weights."""


class RunConfig(Group):
    """One run: stage, length, seed, device and files."""

    best_metric: Literal["nAP50", "nAP"] = "nAP50"
    """Metric of an evaluation by which the best epoch is chosen; stage 1 has no prototypes and uses the last."""
    best_mode: Literal["max", "min"] = "max"
    """Whether the larger or the smaller value is the better one."""
    stage: Literal[1, 2, 3] = 2
    """1 base training, 2 episodic meta-learning, 3 fine-tuning on the K shots of the novel classes."""
    epochs: int = Field(100, ge=1)
    """Number of epochs."""
    eval_interval: int = Field(1, ge=1)
    """Epochs between evaluations; the last epoch is always evaluated."""
    early_eval_epochs: tuple[int, ...] = ()
    """Epochs that are evaluated besides every `eval_interval`-th, over `early_eval_episodes` episodes only."""
    save_interval: int = Field(10, ge=1)
    """Epochs between checkpoints; the last epoch is always saved."""
    checkpoint_dir: Path = Path("checkpoints")
    """Folder for checkpoints and logs of this run."""
    resume: Path | None = None
    """Checkpoint to resume from; one of an earlier stage starts this stage at epoch 0 with a fresh optimiser."""
    resume_with_changes: bool = False
    """Allow a stage to resume with other settings; the changes are logged and recorded."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of the weights, the episodes and the order of images; the evaluation episodes do not depend on it."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch; None: torch's default. Results on a CPU depend on it (order of summation)."""
    mixed_precision: Literal["off", "bf16", "fp16"] = "off"
    """Autocast type on CUDA; norms are always those of unscaled gradients."""
    compile: bool = False
    """Compile the modules with torch.compile; worthwhile for long runs on a GPU."""
    cuda_graph: Literal["auto", "on", "off"] = "auto"
    """Launch the kernels of a step at once, as a CUDA graph; `auto`: where it is possible, `on`: or fail."""
    ema_decay: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is evaluated in their place; None: no average."""
    debug: bool = False
    """Log every step instead of every tenth, and stop on the operation that first makes a NaN."""
