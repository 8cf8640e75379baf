"""Arguments that every training gives to TRL: optimizer, micro-batches, checkpoints, log."""

import os
from pathlib import Path

import torch

from lib.config import Profile, Training
from lib.processes import process_count


def fitting(most: int, rows: int, group: int = 1) -> int:
    """Rows of a micro-batch: whole groups, at most `most` of them, that divide a step's rows.

    Each process has as many. One group where even that is more than `most`. Raises ValueError where
    the groups of a step do not divide among the processes.
    """
    processes = process_count()
    groups = rows // group
    if groups % processes:
        raise ValueError(
            f"`questions_per_step` = {groups} does not divide among {processes} processes; change "
            "it in the profile, or `launch`"
        )
    each = groups // processes
    return group * max(
        k for k in range(1, each + 1) if each % k == 0 and k * group <= max(most, group)
    )


def common_arguments(
    profile: Profile, section: Training, rows: int, work: Path, seed: int, group: int = 1
) -> dict:
    """Keyword arguments for any of TRL's configs; those that differ by method are not among them.

    section: the method's part of the profile; work: where checkpoints lie, beside the training's
    other files; rows: of a step, over all processes; group: rows that stay together.
    """
    micro_batch = fitting(section.micro_batch, rows, group)
    # beside the log, for checkpoints go when a training is done
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(work.parent / "tensorboard")
    return dict(
        output_dir=str(work),
        seed=seed,
        learning_rate=section.learning_rate,
        lr_scheduler_type="constant",  # the default is linear
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=rows // (micro_batch * process_count()),
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
