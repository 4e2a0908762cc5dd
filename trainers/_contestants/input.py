"""Our input, stage by stage, on one core; `worker.py` says how it is asked."""

import os
from functools import cached_property

PACKAGES = ("tensorflow", "keras-cv")
PATH = (
    "read",
    "decode the crop",
    "resize",
    "flip",
    "RandAugment",
    "erasing",
    "batch and mix",
    "recipe",
)
POLICY = "rand-m9-mstd0.5-inc1"
ERASING = 0.25
LABEL_SMOOTHING = 0.1
STEP = 16  # images in a step of the stages before the batch
DRAWN_BEFORE = 256  # images: each operation is drawn once, and compiled, before rounds
IN_MEMORY = 64  # images that a stage by itself works on


def tasks(folder: str, batch_size: int, image_size: int, engine: str) -> dict:
    """The tasks of a folder.

    Each stage of the path is added to those before. "decode" is what "decode the crop"
    is instead of, "only ..." is a stage by itself, on what the stages before left in
    memory, and "recipe" is `training_batches` as it is trained with; the others are
    the operations that it is made of.

    Args:
        folder: Of class folders with JPEGs.
        batch_size: Images in a batch.
        image_size: Side of the views, in pixels.
        engine: Of RandAugment: "own" or "keras-cv". The stages before it and what
            comes after are the same, so with "keras-cv" only its own are measured.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # before TensorFlow looks for them
    import tensorflow as tf

    import keras_deit.data.sources  # noqa: F401, once for all tasks

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    stages = _Stages(folder, batch_size, (image_size, image_size), engine)
    names = {
        "read": stages.read,
        "decode": stages.decode,
        "decode the crop": stages.decode_the_crop,
        "resize": stages.resize,
        "flip": stages.flip,
        "RandAugment": stages.rand_augment,
        "erasing": stages.erasing,
        "batch and mix": stages.batch_and_mix,
        "recipe": stages.recipe,
        "only decode": stages.only_decode,
        "only decode the crop": stages.only_decode_the_crop,
        "only resize": stages.only_resize,
        "only RandAugment": stages.only_rand_augment,
        "only mix": stages.only_mix,
    }
    if engine != "own":
        import keras_cv  # noqa: F401, once for all tasks

        return {n: names[n] for n in ("RandAugment", "only RandAugment", "recipe")}
    return names


class _Stages:
    """Prepares the tasks; each method returns a step."""

    def __init__(self, folder, batch_size, image_size, engine):
        self._folder = folder
        self._batch_size = batch_size
        self._image_size = image_size
        self._policy = {"rand_augment": POLICY, "engine": engine}

    @cached_property
    def _source(self):
        from keras_deit.data.sources import load_source

        return load_source(self._folder, "all")

    def read(self):
        return _step(self._encoded())

    def decode(self):
        return _step(self._encoded().map(_decoded))

    def decode_the_crop(self):
        return _step(self._encoded().map(_crop))

    def resize(self):
        return _step(self._views(flip=False))

    def flip(self):
        return _step(self._views())

    def rand_augment(self):
        return _step(self._views(**self._policy))

    def erasing(self):
        return _step(self._views(**self._policy, erasing=ERASING))

    def batch_and_mix(self):
        batches = self._batches(**self._policy, erasing=ERASING)
        return _step(batches.map(_mixed), self._batch_size, 1)

    def recipe(self):
        from keras_deit.data.augmentation import Augmentation
        from keras_deit.data.mixing import Mixing
        from keras_deit.data.pipeline import training_batches

        batches = training_batches(
            self._source,
            self._image_size,
            self._batch_size,
            seed=0,
            augmentation=Augmentation(**self._policy, erasing=ERASING),
            mixing=Mixing(),
            label_smoothing=LABEL_SMOOTHING,
        )
        return _step(batches, self._batch_size, 1)

    def only_decode(self):
        return _step(_again(self._encoded()).map(_decoded))

    def only_decode_the_crop(self):
        return _step(_again(self._encoded()).map(_crop))

    def only_resize(self):
        from keras_deit.data.geometry import resize

        crops = _again(self._encoded().map(_crop))
        return _step(
            crops.map(lambda crop, key: (resize(crop, *self._image_size), key))
        )

    def only_rand_augment(self):
        from keras_deit.data.augmentation import operations_of
        from keras_deit.data.rand_augment import parse_policy, rand_augment

        policy = parse_policy(POLICY)
        operations = operations_of(self._policy["engine"])

        def augmented(view, key):
            return rand_augment(view, key, policy, operations), key

        return _step(_again(self._views()).map(augmented))

    def only_mix(self):
        return _step(_again(self._batches(), 4).map(_mixed), self._batch_size, 1)

    def _encoded(self):
        """Endless (bytes, key) of the images, in turn."""
        import tensorflow as tf

        from keras_deit.data.views import view_key

        paths = tf.constant(self._source.paths)
        number = len(self._source.paths)

        def example(count):
            key = view_key(0, count // number, count % number)
            return tf.io.read_file(paths[count % number]), key

        return tf.data.Dataset.counter().map(example)

    def _views(self, **augmentation):
        """Endless (view, key), with the operations of an `Augmentation`."""
        from keras_deit.data.augmentation import Augmentation, training_view

        chosen = Augmentation(**augmentation)

        def view(image, key):
            return training_view(image, key, self._image_size, chosen), key

        return self._encoded().map(view)

    def _batches(self, **augmentation):
        """Endless (views, key), with the operations of an `Augmentation`."""
        return self._views(**augmentation).batch(self._batch_size, drop_remainder=True)


def _decoded(image, key):
    from keras_deit.data.geometry import decode_image

    return decode_image(image), key


def _crop(image, key):
    import tensorflow as tf

    from keras_deit.data.augmentation import Augmentation
    from keras_deit.data.geometry import cropped, image_shape
    from keras_deit.data.views import draw_crop

    papers = Augmentation()
    shape = image_shape(image)
    box = draw_crop(key, *shape, papers.crop_area, papers.crop_aspect_ratio)
    return cropped(image, *tf.unstack(box)), key


def _mixed(images, keys):
    import tensorflow as tf

    from keras_deit.data.mixing import Mixing, mix_batch

    labels = tf.zeros((images.shape[0], 1000))
    return mix_batch(images, labels, keys[0], Mixing())


def _again(dataset, number: int = IN_MEMORY):
    """The first elements from memory, endlessly."""
    return dataset.take(number).cache().repeat()


def _step(dataset, items: int = 1, elements: int = STEP):
    """Draws so many elements, of so many items each, from an endless dataset."""
    import tensorflow as tf

    iterator = iter(dataset)

    @tf.function
    def draw():
        for _ in tf.range(elements):
            next(iterator)

    def step():
        draw()
        return items * elements

    drawn = 0
    while drawn < DRAWN_BEFORE:
        drawn += step()
    return step
