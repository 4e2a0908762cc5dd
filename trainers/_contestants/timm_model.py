"""timm's model of a case, with our weights."""


def has_model(case: dict) -> bool:
    """Whether timm has the variant of a case, or can make a distilled DeiT like it."""
    import timm

    encoder = case["encoder"]
    return timm.is_model(case["variant"]) or bool(encoder and encoder["distilled"])


def timm_model(case: dict):
    """Makes the model, ready to answer.

    Args:
        case: What `trainers/_benchmark_inference.py` says.

    Returns:
        A module from pixels in [0, 255], (B, 3, H, W), to logits; it normalizes them as
        the variant wants it, in float32, and computes in what its weights have.
    """
    import timm
    import torch
    from safetensors.torch import load_file

    if timm.is_model(case["variant"]):
        model = timm.create_model(case["variant"], num_classes=1000)
    else:
        encoder = case["encoder"]
        model = timm.models.deit.VisionTransformerDistilled(
            img_size=case["image_size"],
            patch_size=encoder["patch_size"],
            embed_dim=encoder["embed_dim"],
            depth=encoder["depth"],
            num_heads=encoder["num_heads"],
            mlp_ratio=encoder["mlp_ratio"],
            num_classes=1000,
        )
    model.load_state_dict(load_file(case["file"]))
    mean, std = (
        255 * torch.tensor(case[name]).reshape(3, 1, 1) for name in ("mean", "std")
    )

    class FromPixels(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            dtype = next(model.parameters()).dtype
            return self.model(((pixels - mean) / std).to(dtype)).float()

    return FromPixels().eval()
