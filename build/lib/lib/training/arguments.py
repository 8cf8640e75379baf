"""Arguments that every training gives to TRL: optimizer, micro-batches, checkpoints, log."""

from pathlib import Path

import torch

from lib.config import Training


def common_arguments(section: Training, accumulation: int, work: Path, seed: int) -> dict:
    """Keyword arguments for any of TRL's configs; those that differ by method are not among them.

    accumulation: micro-batches that each process adds up before an update.
    """
    return dict(
        output_dir=str(work),
        seed=seed,
        learning_rate=section.learning_rate,
        lr_scheduler_type="constant",  # the default is linear
        per_device_train_batch_size=section.micro_batch,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=False,  # TRL's default is True
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        save_total_limit=1,
        logging_nan_inf_filter=False,  # a loss that is not finite must be seen
        report_to="none",
        disable_tqdm=True,
    )
