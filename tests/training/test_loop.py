from keras_deit import Distiller, create_model
from keras_deit.training.loop import accuracy_name


def test_the_accuracy_that_counts_is_that_of_the_fused_heads():
    for variant, name in (
        ("deit_micro_distilled_patch4_32", "fused_accuracy"),
        ("deit_micro_patch4_32", "accuracy"),
    ):
        distiller = Distiller(create_model(variant, num_classes=3), kind="none")
        assert accuracy_name(distiller) == name
