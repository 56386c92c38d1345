"""Keys of LLaMA-Factory configurations that this loop does not have, and what becomes of them.

A key that cannot change the result here is accepted with the reason; a key that asks for something this loop does not
do is accepted only while it is switched off.
"""

from __future__ import annotations

from typing import Any

_WORKERS = "pages are read by loader threads while the model computes (dataloader_num_workers)"
_GENERATION = "validation decodes greedily under the answer's grammar"

NO_EFFECT = {
    "deepspeed": "Florence-2 fits one device, so there is nothing to shard; several processes run as plain DDP",
    "preprocessing_num_workers": _WORKERS,
    "preprocessing_batch_size": _WORKERS,
    "overwrite_cache": "answers are tokenised at every start, so there is no cache to overwrite",
    "image_resolution": "pages go to the processor as they are and are resized once, to the checkpoint's image size",
    "image_max_pixels": "pages go to the processor as they are and are resized once, to the checkpoint's image size",
    "image_min_pixels": "pages go to the processor as they are and are resized once, to the checkpoint's image size",
    "trust_remote_code": "the model classes of transformers are used; no code of a model folder is run",
    "use_fast_tokenizer": "there is one tokenizer, tokenizer.json",
    "flash_attn": "PyTorch chooses the attention kernel",
    "ddp_find_unused_parameters": "every trainable weight takes part in every step",
    "save_safetensors": "checkpoints are always safetensors",
    "save_only_model": "checkpoints hold what an exact resume needs; best/ holds the model alone",
    "load_best_model_at_end": "best/ is kept beside last/",
    "metric_for_best_model": "best_by names the metric",
    "remove_unused_columns": "only the image and the boxes of a page are read",
    "optim": "AdamW",
    "buffer_size": "data sets are not streamed",
    "ignore_pad_token_for_loss": "padding is never part of the loss",
    "include_num_input_tokens_seen": "pages and answer tokens are counted instead",
    "use_cache": "training never uses the decoding cache",
    "upcast_layernorm": "weights are kept in fp32, so the norms already are",
    "freeze_multi_modal_projector": "the projector is trained, as in the Florence-2 commit of LLaMA-Factory",
    "run_name": "output_dir names the run",
    "logging_dir": "metrics.jsonl lies in output_dir",
    "tokenized_path": "answers are tokenised at every start, which takes seconds",
    "do_sample": _GENERATION,
    "temperature": _GENERATION,
    "top_p": _GENERATION,
    "top_k": _GENERATION,
    "num_beams": _GENERATION,
    "max_new_tokens": "the longest answer of the data set decides",
    "repetition_penalty": _GENERATION,
    "length_penalty": _GENERATION,
}

# key -> (values under which it is switched off, what to do instead)
_OFF = (None, False, 0, "no", "none", "")
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "stage": (("sft",), "only supervised fine-tuning (sft) exists for Florence-2"),
    "template": (("florence2",), "the only template is florence2"),
    "do_train": ((True,), "without training there is nothing to do; `florentune evaluate` scores a model"),
    "do_predict": (_OFF, "use `florentune predict`"),
    "predict_with_generate": (_OFF, "validation always decodes; use `florentune predict` for files"),
    "compute_accuracy": (_OFF, "validation reports page success and mAP instead of token accuracy"),
    "quantization_bit": (_OFF, "quantised training is not supported; use finetuning_type: lora to save memory"),
    "pure_bf16": (_OFF, "weights are kept in fp32; use bf16: true for bf16 arithmetic"),
    "fp16": (_OFF, "use bf16: true, which needs no loss scaling"),
    "fsdp": (_OFF, "use DDP: start the command with torchrun or accelerate launch"),
    "packing": (_OFF, "an answer belongs to one page, so answers are not packed"),
    "neat_packing": (_OFF, "an answer belongs to one page, so answers are not packed"),
    "streaming": (_OFF, "data sets are read whole; split large ones into several files"),
    "train_on_prompt": (_OFF, "the prompt goes to the encoder and has no loss"),
    "mask_history": (_OFF, "a page has one answer and no history"),
    "freeze_language_model": (_OFF, "freezing the language model is not supported; freeze_vision_tower is"),
    "resize_vocab": (_OFF, "the vocabulary is the checkpoint's"),
    "new_special_tokens": (_OFF, "the vocabulary is the checkpoint's"),
    "use_dora": (_OFF, "plain LoRA is supported"),
    "use_rslora": (_OFF, "plain LoRA is supported"),
    "pissa_init": (_OFF, "plain LoRA is supported"),
    "loraplus_lr_ratio": (_OFF, "plain LoRA is supported"),
    "additional_target": (_OFF, "only the LoRA layers are trained; use finetuning_type: full for more"),
    "adapter_name_or_path": (_OFF, "give the adapter folder as model_name_or_path; it is merged before training"),
    "label_smoothing_factor": (_OFF, "the loss is plain cross-entropy"),
    "push_to_hub": (_OFF, "upload best/ afterwards, for example with `hf upload`"),
    "freeze_trainable_layers": (_OFF, "finetuning_type: freeze is not supported; use full or lora"),
    "freeze_trainable_modules": (_OFF, "finetuning_type: freeze is not supported; use full or lora"),
}

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "learning_rate_scheduler": "lr_scheduler_type",
    "model": "model_name_or_path",
    "epochs": "num_train_epochs",
    "batch_size": "per_device_train_batch_size",
    "lr": "learning_rate",
    "overwrite": "overwrite_output_dir",
    "resume": "resume_from_checkpoint",
}


def switched_off(key: str, value: Any) -> bool:
    """Whether an unsupported key has a value that asks for nothing."""
    allowed, _ = UNSUPPORTED[key]
    return any(value == option and type(value) is type(option) for option in allowed)
