"""Arguments that every training gives to TRL: optimizer, micro-batches, checkpoints, log."""

import os
from pathlib import Path

import torch

from lib.config import Profile, Training


def common_arguments(
    profile: Profile, section: Training, accumulation: int, work: Path, seed: int
) -> dict:
    """Keyword arguments for any of TRL's configs; those that differ by method are not among them.

    section: the method's part of the profile; work: where checkpoints lie, beside the training's
    other files; accumulation: micro-batches that each process adds up before an update.
    """
    # beside the log, for checkpoints go when a training is done
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(work.parent / "tensorboard")
    return dict(
        output_dir=str(work),
        seed=seed,
        learning_rate=section.learning_rate,
        lr_scheduler_type="constant",  # the default is linear
        per_device_train_batch_size=section.micro_batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=section.gradient_checkpointing,  # TRL's default is True
        gradient_checkpointing_kwargs={"use_reentrant": False},
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        save_total_limit=1,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        report_to=profile.report_to,
        # a tracker's name of the run: run, model, data set, seed, stage and training
        run_name="/".join(work.parts[-7:-1]),
        disable_tqdm=True,
    )
