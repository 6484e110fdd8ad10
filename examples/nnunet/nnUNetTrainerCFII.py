"""nnU-Net v2 with CFII in its 2-D networks, as a trainer: all of nnU-Net's commands work with it.

    pip install "cfii[train]" "nnunetv2>=2.8"
    export nnUNet_raw=... nnUNet_preprocessed=... nnUNet_results=...
    export nnUNet_extTrainer=$PWD/examples/nnunet        # where nnU-Net looks for trainers that are not its own
    python examples/nnunet/raw_dataset.py                # a small data set to try it on; or your own
    nnUNetv2_plan_and_preprocess -d 900 -c 2d
    nnUNetv2_train 900 2d 0 -tr nnUNetTrainerCFII        # a first look: nnUNetTrainerCFII_5epochs -device cpu
    nnUNetv2_predict -d 900 -c 2d -f 0 -tr nnUNetTrainerCFII -i IMAGES -o MASKS

Plans, patches, augmentation, schedule, checkpoints and inference stay nnU-Net's. CFII goes between the planned
network's encoder and decoder; the loss is the paper's, without deep supervision.
"""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from cfii import CFIILoss, CFIIWrapper


class CFIIUNet(CFIIWrapper):
    """In training it returns what the loss needs; in evaluation the logits alone, which nnU-Net expects."""

    def forward(self, images):
        return super().forward(images, return_aux=self.training)


class nnUNetTrainerCFII(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False

    # nnU-Net looks at the names of these parameters.
    @staticmethod
    def build_network_architecture(
        plans_manager,
        configuration_manager,
        num_input_channels,
        num_output_channels,
        enable_deep_supervision=False,
    ):
        patch = configuration_manager.patch_size
        if len(patch) != 2:
            raise ValueError(f"expected nnU-Net's configuration 2d, got patches of {patch}")
        unet = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, False
        )
        unet.decoder.seg_layers = unet.decoder.seg_layers[-1:]  # those of deep supervision would get no gradient
        # SIT's cost grows with the square of a stage's pixels: with large patches, on the deep stages only.
        sit_min_stride = 4 if max(patch) <= 256 else 16
        parts = unet.encoder, unet.decoder, num_output_channels
        return CFIIUNet(*parts, sit_min_stride=sit_min_stride)

    def set_deep_supervision_enabled(self, enabled):
        pass

    def _build_loss(self):
        labels = self.label_manager
        if labels.has_regions and labels.has_ignore_label:
            raise NotImplementedError("nnUNetTrainerCFII: regions together with an ignore label")
        mode = "multilabel" if labels.has_regions else "multiclass"
        return CFIILoss(
            labels.num_segmentation_heads, mode, ignore_index=labels.ignore_label, across_processes=self.is_ddp
        )


class nnUNetTrainerCFII_5epochs(nnUNetTrainerCFII):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 5, 20, 5
