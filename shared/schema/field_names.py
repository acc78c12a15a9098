"""Maps unknown field names to ours: synonyms used by other programs, then the closest match. Pure.

The synonyms come from AUTOMATIC1111 and Forge (POST /sdapi/v1/txt2img and their ControlNet units), ComfyUI (inputs of
its nodes), OpenAI (POST /v1/images/generations), diffusers (arguments of its pipelines), SwarmUI (parameters of
GenerateText2Image), and the hosted services that follow one of them. Case, blanks, `-` and `_` do not matter.

A synonym is only suggested, never read as the field, because its range and meaning may differ (`strength`, `n_iter`).
Only the fields of a LoRA, which are unambiguous, are read by their synonyms (see `shared.web.parsing.loras`).
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence

from shared.schema.choices import fold

# The least similarity of a misspelt name (0 to 1), and the most of its characters that are compared or quoted.
MIN_SIMILARITY = 0.75
MAX_NAME_LENGTH = 100
# The most names that one text lists.
MAX_NAMES = 20

Synonyms = Mapping[str, Sequence[str]]
"""Folded names, with the fields that they may mean, in the order in which they are tried."""


def _invert(*tables: Mapping[str, str]) -> Synonyms:
    names: dict[str, list[str]] = {}
    for table in tables:
        for field, others in table.items():
            for name in others.split():
                names.setdefault(fold(name), []).append(field)
    return names


# Synonyms by field, or by the header that has its function; several fields are joined by " and ".
_GENERATION: Mapping[str, str] = {
    "prompt": "positive positive_prompt prompt_positive text text_prompt prompt_text txt caption description inputs "
    "input query prompts positive_text instruction text_prompts text_g text_l clip_l",
    "negative_prompt": "negative neg neg_prompt prompt_negative negative_text uncond uc undesired_content n_prompt "
    "negative_prompts unconditional_prompt prompt_neg anti_prompt",
    "model_name": "model checkpoint checkpoint_name ckpt ckpt_name ckpt_path checkpoint_path model_id model_path "
    "sd_model sd_model_checkpoint sd_model_name sd_checkpoint sd_model_hash model_hash base_model unet unet_name "
    "diffusion_model pretrained_model_name_or_path engine engine_id model_key model_title",
    "vae_name": "sd_vae vae_model vae_path vae_file vae_id vae_url sd_vae_name",
    "text_encoders": "clip clip_name clip_name1 clip_name2 clip_name3 clip_model text_encoder text_encoder_2 "
    "t5xxl_model clip_l_model clip_g_model forge_additional_modules",
    "width and height": "size image_size resolution dimensions dimension aspect_ratio image_dimensions img_size "
    "output_size side_length image_resolution",
    "width": "w image_width img_width output_width picture_width empty_latent_width",
    "height": "h image_height img_height output_height picture_height empty_latent_height",
    "steps": "num_inference_steps sampling_steps num_steps n_steps inference_steps sample_steps ddim_steps iterations "
    "sampler_steps number_of_steps step_count step",
    "cfg_scale": "cfg guidance_scale cfg_guidance classifier_free_guidance classifier_free_guidance_scale "
    "unconditional_guidance_scale cfg_strength prompt_strength scale true_cfg_scale true_cfg prompt_guidance",
    "guidance": "flux_guidance flux_guidance_scale distilled_cfg_scale distilled_cfg distilled_guidance "
    "embedded_guidance_scale",
    "sampler_name": "sampler sampler_index sampler_id sampling_method sample_method sampler_type sampling "
    "sampler_select ksampler scheduler_class",
    "scheduler": "schedule schedule_type scheduler_name scheduler_type noise_schedule sigmas sigma_schedule "
    "scheduler_id",
    "karras_sigmas": "karras use_karras use_karras_sigmas",
    "seed": "noise_seed manual_seed rand_seed initial_seed generator seeds rng_seed seed_number",
    "random_seed": "randomize_seed randomise_seed use_random_seed seed_random",
    "batch_size": "n num_images num_images_per_prompt num_outputs num_samples number_of_images n_samples image_count "
    "number_results images count amount batch samples num_results number_of_pictures picture_count num_pictures "
    "n_images",
    "batch_count": "n_iter num_batches n_batches batches repeat repeats number_of_batches batch_num iter",
    "clip_skip": "clip_stop_at_last_layers clip_stop_at_layer stop_at_clip_layer clip_layer clip_last_layer skip_clip "
    "clip_skip_layers",
    "lora": "lora_name lora_model lora_file lora_path lora_id lora_weight lora_strength lora_scale",
    "loras": "lora_weights lora_list lora_models additional_networks lora_configs networks lora_names",
    "controlnet": "controlnets control_net control_nets controlnet_units controlnet_args alwayson_scripts "
    "controlnet_model controlnet_unit control_image controlnet_image controlnet_conditioning_scale "
    "control_guidance_start control_guidance_end controlnet_image_input controlnet_strength",
    "hires_fix": "enable_hr hr highres_fix high_res_fix hires highres use_hires_fix enable_hires_fix hi_res_fix",
    "hires_fix_upscaler": "hr_upscaler hires_upscaler refiner_upscale_method latent_upscale hires_upscale_model",
    "hires_fix_upscale_factor": "hr_scale hires_upscale hires_scale refiner_upscale hires_factor",
    "hires_fix_hires_steps": "hr_second_pass_steps hires_steps hr_steps refiner_steps hires_fix_steps",
    "hires_fix_denoising_strength": "hr_denoising_strength hires_denoise hires_denoising_strength "
    "refiner_control_percentage hires_strength hires_fix_denoise hires_fix_strength",
    "hires_fix_resize_width": "hr_resize_x hires_width hires_resize_width",
    "hires_fix_resize_height": "hr_resize_y hires_height hires_resize_height",
    "hires_fix_sampler_name": "hr_sampler_name hr_sampler hires_sampler hires_fix_sampler refiner_sampler",
    "hires_fix_scheduler": "hr_scheduler hires_scheduler refiner_scheduler",
    "hires_fix_cfg_scale": "hr_cfg hr_cfg_scale hires_cfg hires_cfg_scale hires_fix_cfg refiner_cfg_scale",
    "refiner_enabled": "use_refiner enable_refiner refine",
    "refiner_model": "refiner refiner_checkpoint refiner_name refiner_model_name",
    "refiner_switch_at": "refiner_start refiner_switch high_noise_frac denoising_end denoising_start refiner_at",
    "upscaler": "upscale upscale_model upscaler_name upscaler_model upscaler_1 upscale_method",
    "upscale_factor": "upscale_by upscaling_resize scale_by scale_factor upscale_scale outscale upscaling",
    "restore_faces": "face_restoration face_restore face_fix fix_faces enhance_faces face_enhance use_face_restore",
    "face_restoration_model": "face_restorer face_model face_restore_model",
    "codeformer_weight": "codeformer_fidelity",
    "tiling": "seamless seamless_tileable tileable tile",
    "tile_size": "vae_tile_size decoder_tile_size",
    "tile_overlap": "vae_tile_overlap overlap",
    "custom_workflow": "workflow comfyui_workflow comfy_workflow graph workflow_json api_workflow "
    "comfyui_custom_workflow custom_graph",
    "preview": "previews live_preview show_preview send_preview",
    "large_sizes": "large_size two_passes",
    "input_image": "init_images init_image image image_url img img_url source_image input_images init_image_url "
    "image_base64 image_b64 base64_image base_image initial_image reference_image image_data image_path image_prompt "
    "init_img source_img input_img source init_images_base64 pixels images_base64",
    "mask": "mask_image mask_url mask_img inpaint_mask mask_b64 mask_base64 mask_data inpainting_mask image_mask "
    "mask_source latent_mask",
    "denoising_strength": "denoise strength denoising image_strength denoise_strength init_image_creativity "
    "img2img_strength noise_strength creativity image_to_image_strength variation_strength initial_noise_multiplier",
    "inpaint_mode": "inpainting_fill inpainting_mode masked_content inpainting inpaint",
    "grow_mask_by": "grow_mask mask_grow mask_expand mask_dilate mask_dilation",
    "mask_blur": "mask_blur_x mask_blur_y mask_feather blur_mask blur_factor mask_softness",
    "invert_mask": "inpainting_mask_invert mask_invert mask_inverted inverted_mask",
    "only_masked": "inpaint_full_res inpaint_only_masked only_mask masked_only inpaint_area mask_only",
    "only_masked_padding": "inpaint_full_res_padding padding_mask_crop mask_shrink_grow mask_padding inpaint_padding",
    "outpaint_left": "left pad_left extend_left",
    "outpaint_top": "top up pad_top extend_top",
    "outpaint_right": "right pad_right extend_right",
    "outpaint_bottom": "bottom down pad_bottom extend_bottom",
    "outpaint_feathering": "feathering feather",
    "the header Accept": "response_format output_format image_format format output_type return_type media_type "
    "return_base64",
    "the header Accept: text/event-stream": "stream streaming partial_images",
    "the header Prefer: respond-async": "async async_process async_mode webhook webhook_url callback_url sync_mode",
    "the header Idempotency-Key": "idempotency_key request_id",
}
# Synonyms of the routes that enlarge a picture, where the picture is `image`; they precede those above.
_UPSCALE: Mapping[str, str] = {
    "image": f"{_GENERATION['input_image']} input_image picture images file input",
    "upscaler": "model model_name",
    "upscaler_model": f"{_GENERATION['upscaler']} upscaler model model_name",
    "upscaler_model_2": "upscaler_2 extras_upscaler_2",
    "upscaler_visibility_2": "extras_upscaler_2_visibility",
    "upscale_factor": "scale factor resize upscale",
    "output_format": "format image_format response_format file_format output_type",
}
# Synonyms of routes that take a picture; they precede those above: `images` means pictures there, not their number.
_PICTURE: Mapping[str, str] = {"input_image": "images picture file"}
# Synonyms by field, in the order in which they are read if several were sent: file names before display names.
LORA_SPELLINGS: Mapping[str, str] = {
    "lora_name": "filename file file_name path lora_path lora_file lora lora_model name model model_name",
    "strength_model": "weight strength scale multiplier model_strength model_weight weight_model lora_scale "
    "lora_strength lora_weight unet_strength unet_weight",
    "strength_clip": "clip_weight clip_strength weight_clip strength_two strength_text_encoder te_strength "
    "text_encoder_strength te_weight",
    "enabled": "on enable active is_enabled is_active",
}
# The fields of a unit are synonyms of `units`, for units that are sent without their list.
CONTROLNET_SYNONYMS = _invert(
    {
        "units": "args unit list controlnets items controlnet_units model input_image image preprocessor module weight "
        "control_type control_mode resize_mode guidance_start guidance_end strength",
        "enabled": "on enable active is_enabled is_active",
    }
)
CONTROL_UNIT_SYNONYMS = _invert(
    {
        "enabled": "on enable active is_enabled is_active",
        "model": "control_net_name controlnet_model model_name name controlnet_name controlnet control_net model_id",
        "input_image": "image control_image img control_map source hint image_url init_image image_base64 picture "
        "controlnet_image image_input",
        "preprocessor": "module annotator preprocessor_name processor detector",
        "control_type": "type controlnet_type union_type",
        "weight": "strength conditioning_scale controlnet_conditioning_scale control_weight scale multiplier",
        "guidance_start": "start_percent start control_guidance_start starting_control_step begin start_at",
        "guidance_end": "end_percent end control_guidance_end ending_control_step stop end_at",
        "resolution": "processor_res preprocessor_resolution detect_resolution annotator_resolution image_resolution",
        "threshold_a": "low_threshold canny_low threshold_low threshold_1",
        "threshold_b": "high_threshold canny_high threshold_high threshold_2",
        "resize_mode": "image_resize_mode",
    }
)
GENERATION_SYNONYMS = _invert(_PICTURE, _GENERATION)
TXT2IMG_SYNONYMS = _invert(_GENERATION)
UPSCALE_SYNONYMS = _invert(_UPSCALE, _GENERATION)
LORA_SYNONYMS = _invert(LORA_SPELLINGS)


def suggest_field(name: str, known: Iterable[str], synonyms: Synonyms) -> str | None:
    """Return the `known` field (or fields, or header) that an unknown name means; None if there is none.

    It tries other spellings first, then `synonyms`, then similar names.
    """
    known, folded = list(known), fold(name[:MAX_NAME_LENGTH])
    by_spelling = {fold(field): field for field in known}
    if folded in by_spelling:
        return by_spelling[folded]
    for field in synonyms.get(folded, ()):
        if _is_available(field, known):
            return field
    closest = difflib.get_close_matches(folded, by_spelling, n=1, cutoff=MIN_SIMILARITY)
    return by_spelling[closest[0]] if closest else None


def describe_unknown(
    name: str, known: Iterable[str], synonyms: Synonyms, prefix: str = "", img2img: Collection[str] = ()
) -> str:
    """Return an unknown name with its path and a suggestion; `img2img` are fields that only that route has."""
    quoted = f"{prefix}{name if len(name) <= MAX_NAME_LENGTH else name[:MAX_NAME_LENGTH] + '...'}"
    suggestion = suggest_field(name, known, synonyms)
    if suggestion is not None:
        return f"{quoted} (did you mean {suggestion}?)"
    elsewhere = suggest_field(name, img2img, {**synonyms, "image": ["input_image"]})
    return quoted if elsewhere is None else f"{quoted} (img2img has {elsewhere})"


def join_names(names: Sequence[str]) -> str:
    """Join names to a list of at most MAX_NAMES."""
    return ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")


def hint_unknown_names(wanted: str, sent: Iterable[str], known: Collection[str], synonyms: Synonyms) -> str | None:
    """Return a hint that lists the unknown ones of the `sent` names, those that mean `wanted` first; None if none is
    unknown."""
    unknown = [name for name in sent if name not in known][: 10 * MAX_NAMES]
    unknown.sort(key=lambda name: suggest_field(name, known, synonyms) != wanted)
    if not unknown:
        return None
    return f"unknown fields: {join_names([describe_unknown(name, known, synonyms) for name in unknown])}"


def _is_available(field: str, known: Collection[str]) -> bool:
    return field.startswith("the header ") or all(part in known for part in field.split(" and "))
