"""The networks, one file each, and their settings, one record each, in `specs/`, which needs no torch.

To add one: a file with its layers, a record of its settings in `specs/` (see `Network` in base.py), a line in `PLACES`,
and its rule in seg25d/planning/network_rules.py. Then `--network`, `--help` and plans know it.
"""

PLACES: dict[str, str] = {
    "unet": "seg25d.networks.specs.unet:UNetSpec",
    "se_unet": "seg25d.networks.specs.se_unet:SEUNetSpec",
    "swin_unetr": "seg25d.networks.specs.swin_unetr:SwinUNETRSpec",
    "vnet": "seg25d.networks.specs.vnet:VNetSpec",
    "xception_cbam_unet": "seg25d.networks.specs.xception_cbam_unet:XceptionCBAMUNetSpec",
    "resnet_unet": "seg25d.networks.specs.resnet_unet:ResNetUNetSpec",
    "rstn": "seg25d.networks.specs.rstn:RSTNSpec",
    "fusion_net": "seg25d.networks.specs.fusion_net:FusionNetSpec",
}
"""Networks by name: where the record of each is, see `Registry`."""

PAPER_UNETS = ("super_image_unet", "half_unet")
"""Published U-Nets with a name of their own; plans store them as `unet` with their settings."""

REQUESTABLE = (*PLACES, *PAPER_UNETS)
"""Names that `--network` accepts; each has its rule in seg25d/planning/network_rules.py."""

MIXINGS = ("shift", "attention", "conv", "acs")
"""Ways of mixing slices, last in the name of a configuration (`si__shift`): the kinds of seg25d/networks/mixing.py."""
