"""Measure speed, ours and that of others, on this machine.

--what=all measures all that the goals of this library are about, part by part, and
prints one table: what was measured, ours, the peer's, the ratio of both, the goal, and
whether it is met, or why it was not measured. A part that fails is named, and the
others go on; each writes files of its own beside. It takes DeiT-S and long, an hour or
so; --quick takes small models, fewer engines and two minutes, and judges no goal. It
works on one core unless --cores=all. --peers says whose packages take part.

Every contestant runs in its own process, one at a time, on the same core and with one
thread; in each round every task runs once, in a random order. What is reported are
medians of the rounds, ratios of medians to a named baseline with the spread of those in
the same round (10th to 90th percentile), and the share of the core that other programs
took. Tables are printed, and a JSON file with all rounds and a picture are written. A
package that is not installed leaves its contestant out; one that fails is named, the
others go on, and the exit code is not 0.

--what=input measures training input, from JPEG files to batches of the papers' recipe
(random resized crop, flip, RandAugment, random erasing, Mixup or CutMix) at 224 pixels,
stage by stage: ours, ours with the operations of keras-cv, and timm's transforms on PIL
images. Seconds are those that the core worked for the contestant, so that images/s are
images per second and core on a machine that is busy, too; files are read once before,
so they come from memory.

--what=distillation measures a training step of one student without a teacher, with a
live teacher, and with what a cache of its logits kept: all, 16 of them, or the argmax.
The steps are those of `train`, with the same pixels from memory and random weights;
only who teaches differs. Ratios are of times: what a step costs, over the step without
a teacher.

--what=inference measures one model, with the same random weights, in one engine after
another: timm's (eager, through torch.compile, and converted by OpenVINO), KerasHub's
(with weights of its own), Keras' `predict`, a `tf.function` and `keras_deit.compiled`,
the artifacts of `export`, and ONNX Runtime's own dynamic int8 of our ONNX file, each at
several keep rates and batch sizes. An engine is timed only if it answers as the model
does. With several variants, the others are compared with the first, too. The picture
shows GMACs against images/s. With --cores=all they work on all cores, by the clock on
the wall.

--what=softsplit measures the three soft splits of T2T-ViT-14 at 224 pixels, forward and
with the gradient, in five exact ways of TensorFlow and as PyTorch's nn.Unfold. Tokens
and gradient of each are compared with those by definition before it is timed. Ratios
are of times.

--what=startup measures a fresh process that imports a library and builds DeiT-Ti: ours,
KerasHub's, timm's, and LiteRT with our int8 file and without TensorFlow; seconds and
the peak of memory after the import and after the build. Each round starts each of them
anew, once; a first start, which fills the caches of files, does not count. Ratios are
of times and of memory.

--what=train measures a training step on all cores, or on the GPUs if there are any, by
the clock on the wall: ours, as `fit` makes it of the official recipe of DeiT, and
timm's, each with and without a live teacher, in each precision; ours also from files,
over several replicas, in parts of a batch. Beside images/s stand what share of the
step the teacher takes, what share input from files takes (or delays), and the largest
memory. Where other programs take much of the cores, take --cores=one: threads that wait
for one another lose more than the others took.

Examples:
  python -m trainers benchmark --what=input --quick
  python -m trainers benchmark --dataset=~/imagenet/val --rounds=11
  python -m trainers benchmark --peer_python=~/with-timm/bin/python
  python -m trainers benchmark --what=distillation --teacher=regnety_032
  python -m trainers benchmark --what=inference --variants=t2t_vit_7,t2t_vit_14
  python -m trainers benchmark --what=all --quick --peers=timm,openvino
  python -m trainers benchmark --what=train --replicas=1,2 --gradient_checkpointing
"""

from pathlib import Path

from absl import flags

from trainers._benchmark_flags import define_flags

__all__ = ["define_flags", "main"]


def main(values: flags.FlagValues) -> None:
    """Runs the contest, prints the table and writes the files.

    Raises:
        ValueError: If a flag is refused.
        RuntimeError: If a contestant failed, or a part of `all`; what the others did is
            written all the same.
    """
    from trainers._benchmark_all import measure_all
    from trainers._benchmark_measure import measure

    output = Path(values.output or f"benchmarks/{values.what}.json").expanduser()
    (measure_all if values.what == "all" else measure)(values, output)
