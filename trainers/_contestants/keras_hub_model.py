"""KerasHub's distilled DeiT, with random weights of its own."""


def keras_hub_model(encoder: dict, image_size: tuple[int, int]):
    """Makes the model.

    Args:
        encoder: What `_benchmark_inference.encoder_of` says of the variant.
        image_size: Height and width of the images, in pixels.
    """
    from keras_hub.models import DeiTBackbone, DeiTImageClassifier

    backbone = DeiTBackbone(
        image_shape=(*image_size, 3),
        patch_size=encoder["patch_size"],
        num_layers=encoder["depth"],
        num_heads=encoder["num_heads"],
        hidden_dim=encoder["embed_dim"],
        intermediate_dim=int(encoder["embed_dim"] * encoder["mlp_ratio"]),
    )
    return DeiTImageClassifier(backbone, num_classes=1000, preprocessor=None)
