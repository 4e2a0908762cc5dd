"""How the label loss and the distillation loss become one."""

from dataclasses import dataclass

from keras_deit._checks import check, check_choice, check_share
from keras_deit.distillation.losses import (
    REDUCTIONS,
    hard_distillation,
    soft_distillation,
)

KINDS = ("none", "soft", "hard")


@dataclass(frozen=True)
class Objective:
    """What a student is trained for; see `Distiller` for the fields.

    Raises:
        ValueError: If a field is outside its range or has no meaning for `kind`.

    Example:
    >>> Objective("soft", temperature=3.0).alpha
    0.5
    """

    kind: str = "hard"
    alpha: float = 0.5
    temperature: float = 1.0
    reduction: str = "batchmean"
    teacher_label_smoothing: float = 0.0

    def __post_init__(self):
        """Checks the fields."""
        check_choice("kind", self.kind, KINDS)
        check_share("alpha", self.alpha)
        check_choice("reduction", self.reduction, REDUCTIONS)
        check_share("teacher_label_smoothing", self.teacher_label_smoothing)
        check(
            self.temperature > 0,
            "`temperature` must be positive.",
            temperature=self.temperature,
        )
        for option, neutral, meant_for in (
            ("temperature", 1.0, "soft"),
            ("reduction", "batchmean", "soft"),
            ("teacher_label_smoothing", 0.0, "hard"),
        ):
            check(
                self.kind == meant_for or getattr(self, option) == neutral,
                f"`{option}` has a meaning for `kind={meant_for!r}` only.",
                **{option: getattr(self, option)},
                kind=self.kind,
            )

    def __call__(self, label_loss, outputs, teacher_logits) -> dict:
        """Blends the losses of each example; see `Distiller.losses_of`."""
        if self.kind == "none" or teacher_logits is None:
            return {"loss": label_loss, "label_loss": label_loss}
        logits = outputs["distillation"] if isinstance(outputs, dict) else outputs
        if self.kind == "soft":
            distillation_loss = soft_distillation(
                logits, teacher_logits, self.temperature, self.reduction
            )
        else:
            distillation_loss = hard_distillation(
                logits, teacher_logits, self.teacher_label_smoothing
            )
        return {
            "loss": (1 - self.alpha) * label_loss + self.alpha * distillation_loss,
            "label_loss": label_loss,
            "distillation_loss": distillation_loss,
        }
