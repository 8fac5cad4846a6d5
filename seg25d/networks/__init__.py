"""The networks, one file each.

To add one: a file with a record of its settings, see `Network` in base.py, one line in `PLACES`, and its rule in
seg25d/planning/network_rules.py. Then `--network`, `--help` and plans know it.
"""

PLACES: dict[str, str] = {
    "unet": "seg25d.networks.unet:UNetSpec",
    "se_unet": "seg25d.networks.se_unet:SEUNetSpec",
    "swin_unetr": "seg25d.networks.swin_unetr:SwinUNETRSpec",
    "vnet": "seg25d.networks.vnet:VNetSpec",
    "xception_cbam_unet": "seg25d.networks.xception_cbam_unet:XceptionCBAMUNetSpec",
    "resnet_unet": "seg25d.networks.resnet_unet:ResNetUNetSpec",
    "rstn": "seg25d.networks.rstn:RSTNSpec",
    "fusion_net": "seg25d.networks.fusion_net:FusionNetSpec",
}
"""Networks by name: where the record of each is, see `Registry`."""

PAPER_UNETS = ("super_image_unet", "half_unet")
"""Published U-Nets with a name of their own; plans store them as `unet` with their settings."""

REQUESTABLE = (*PLACES, *PAPER_UNETS)
"""Names that `--network` accepts; each has its rule in seg25d/planning/network_rules.py."""

MIXINGS = ("shift", "attention", "conv")
"""Ways of mixing slices, last in the name of a configuration (`si__shift`): the kinds of seg25d/networks/mixing.py."""
