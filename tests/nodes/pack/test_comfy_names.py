"""Every name taken from ComfyUI is listed here, is there, and takes what it is given.

Checked against the ComfyUI that runs the tests, and against the parameters that newer versions
have by their source (docs/comfyui_versions.md says which files of which commits).
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from comfy_names import Override, read_pack

ROOT = Path(__file__).parents[3]

# As tests/support/comfy_names.py writes them; ``?``: feature-checked, as versions lack it.
# ruff: noqa: E501
USED = """
comfy.conds.CONDCrossAttn(_)
comfy.conds.CONDNoiseShape(_)
comfy.conds.CONDRegular(_)
comfy.context_windows.ContextFuseMethods.FLAT
comfy.context_windows.ContextSchedule(_, _)
comfy.context_windows.IndexListContextHandler
comfy.context_windows.IndexListContextHandler.__init__(context_length, context_overlap, context_schedule, dim, fuse_method)
comfy.context_windows.IndexListContextHandler.context_length
comfy.context_windows.IndexListContextHandler.context_overlap
comfy.context_windows.IndexListContextHandler.evaluate_context_windows(_, _, _, _, _, _, _, *, **)
comfy.context_windows.IndexListContextHandler.get_resized_cond(_, _, _, _)
comfy.context_windows.create_prepare_sampling_wrapper(_)
comfy.context_windows.get_matching_fuse_method(_)
comfy.hooks.Hook
comfy.hooks.WeightHook
comfy.latent_formats.SD_X4
comfy.latent_formats.SD_X4.__init__()
comfy.ldm.modules.attention.optimized_attention
comfy.ldm.modules.diffusionmodules.model.vae_attention()
comfy.model_base.BaseModel.__init__(_, _, device, unet_model)
comfy.model_base.ModelType.V_PREDICTION
comfy.model_base.SD_X4Upscaler
comfy.model_base.SD_X4Upscaler.diffusion_model
comfy.model_base.SD_X4Upscaler.get_dtype()
comfy.model_base.SD_X4Upscaler.manual_cast_dtype
comfy.model_base.SD_X4Upscaler.state_dict_for_saving(*, **)
comfy.model_management.archive_model_dtypes(_)
comfy.model_management.dtype_size(_)
comfy.model_management.get_free_memory(_)
comfy.model_management.get_torch_device()
comfy.model_management.get_total_memory(_)
comfy.model_management.intermediate_device()
comfy.model_management.is_device_cpu(_)
comfy.model_management.is_oom(_)?
comfy.model_management.load_models_gpu(_, memory_required)
comfy.model_management.should_use_bf16(_)
comfy.model_management.soft_empty_cache()
comfy.model_management.throw_exception_if_processing_interrupted()
comfy.model_management.unet_dtype(model_params, supported_dtypes, weight_dtype)
comfy.model_management.unet_manual_cast(_, _, _)
comfy.model_management.unet_offload_device()
comfy.model_management.vae_device()
comfy.model_management.vae_dtype(_, _)
comfy.model_management.vae_offload_device()
comfy.model_patcher.CoreModelPatcher(_, load_device, offload_device)?
comfy.model_patcher.ModelPatcher(_, load_device, offload_device)
comfy.model_patcher.ModelPatcher.add_wrapper_with_key(_, _, _)
comfy.model_patcher.ModelPatcher.backup.items()
comfy.model_patcher.ModelPatcher.cached_patcher_init?
comfy.model_patcher.ModelPatcher.clone()
comfy.model_patcher.ModelPatcher.injections
comfy.model_patcher.ModelPatcher.is_dynamic()?
comfy.model_patcher.ModelPatcher.load_device
comfy.model_patcher.ModelPatcher.model.diffusion_model
comfy.model_patcher.ModelPatcher.model.diffusion_model.state_dict()
comfy.model_patcher.ModelPatcher.model.latent_format
comfy.model_patcher.ModelPatcher.model_options
comfy.model_patcher.ModelPatcher.model_options.get(_, _)
comfy.model_patcher.ModelPatcher.model_options.pop(_, _)
comfy.model_patcher.ModelPatcher.object_patches
comfy.model_patcher.ModelPatcher.remove_wrappers_with_key(_, _)
comfy.model_patcher.ModelPatcher.wrappers.items()
comfy.ops.disable_weight_init
comfy.ops.manual_cast
comfy.patcher_extension.WrapperExecutor.new_class_executor(_, _, _)
comfy.patcher_extension.WrappersMP
comfy.patcher_extension.WrappersMP.CALC_COND_BATCH
comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
comfy.patcher_extension.WrappersMP.OUTER_SAMPLE
comfy.patcher_extension.WrappersMP.PREDICT_NOISE
comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
comfy.patcher_extension.get_all_wrappers(_, _)
comfy.samplers.CFGGuider
comfy.samplers.CFGGuider.__init__(_)
comfy.samplers.CFGGuider.predict_noise(_, _, *, **)
comfy.samplers.KSAMPLER
comfy.samplers.KSAMPLER.__init__(_, _)
comfy.samplers.KSAMPLER.extra_options
comfy.samplers.Sampler
comfy.sd.CLIP(_)
comfy.sd.CLIPType.STABLE_DIFFUSION
comfy.sd.load_text_encoder_state_dicts(_, clip_type, embedding_directory, model_options, **)
comfy.supported_models.SD_X4Upscaler
comfy.utils.PROGRESS_BAR_ENABLED
comfy.utils.ProgressBar(_)
comfy.utils.ProgressBar.update_absolute(_, _, _)
comfy_api.input_impl.VideoFromFile(_)
comfy_api.latest.ComfyExtension
comfy_api.latest.io.Boolean
comfy_api.latest.io.Boolean.Input(_, default, optional, tooltip, **)
comfy_api.latest.io.Clip.Output(tooltip)
comfy_api.latest.io.Combo.Input(_, default, optional, options, tooltip, **)
comfy_api.latest.io.Combo.Input.extra_dict
comfy_api.latest.io.ComfyNode
comfy_api.latest.io.Conditioning.Input(_, optional, tooltip)
comfy_api.latest.io.Conditioning.Output(display_name, tooltip)
comfy_api.latest.io.Custom(_)
comfy_api.latest.io.Custom.Input(_, optional, tooltip)
comfy_api.latest.io.Custom.Output(display_name, tooltip)
comfy_api.latest.io.Float
comfy_api.latest.io.Float.Input(_, default, max, min, optional, round, step, tooltip, **)
comfy_api.latest.io.FolderType.output
comfy_api.latest.io.Hidden.dynprompt
comfy_api.latest.io.Hidden.prompt
comfy_api.latest.io.Hidden.unique_id
comfy_api.latest.io.Image
comfy_api.latest.io.Image.Input(_, optional, tooltip)
comfy_api.latest.io.Image.Output(display_name, tooltip)
comfy_api.latest.io.Int
comfy_api.latest.io.Int.Input(_, default, max, min, step, tooltip, **)
comfy_api.latest.io.Latent.Input(_, tooltip)
comfy_api.latest.io.Latent.Output(display_name, tooltip)
comfy_api.latest.io.Mask
comfy_api.latest.io.Mask.Output(display_name, tooltip)
comfy_api.latest.io.Model.Input(_, optional, tooltip)
comfy_api.latest.io.Model.Output(tooltip)
comfy_api.latest.io.MultiType.Input(_, _, tooltip)
comfy_api.latest.io.NodeOutput(_, _, _, _, expand, ui, *)
comfy_api.latest.io.NumberDisplay.slider
comfy_api.latest.io.Sampler.Output(tooltip)
comfy_api.latest.io.Schema(display_name, node_id, **)
comfy_api.latest.io.Sigmas.Output(tooltip)
comfy_api.latest.io.String
comfy_api.latest.io.String.Input(_, default, tooltip, **)
comfy_api.latest.io.String.Output(display_name, tooltip)
comfy_api.latest.io.Vae.Input(_, tooltip)
comfy_api.latest.io.Vae.Output(tooltip)
comfy_api.latest.io.Video
comfy_api.latest.io.Video.Input(_, extra_dict, tooltip)
comfy_api.latest.io.Video.Output(tooltip)
comfy_api.latest.ui.PreviewImage(_)
comfy_api.latest.ui.PreviewText(_)
comfy_api.latest.ui.PreviewVideo(_)
comfy_api.latest.ui.SavedResult(_, _, _)
comfy_execution.graph_utils.GraphBuilder()
comfy_execution.graph_utils.GraphBuilder.finalize()
comfy_execution.graph_utils.GraphBuilder.node(_, clip, flow_model, model, negative, options, positive, text, vae, video, **)
folder_paths.add_model_folder_path(_, _)
folder_paths.folder_names_and_paths
folder_paths.get_filename_list(_)
folder_paths.get_folder_paths(_)
folder_paths.get_full_path(_, _)
folder_paths.get_input_directory()
folder_paths.get_output_directory()
folder_paths.get_save_image_path(_, _, _, _)
folder_paths.get_temp_directory()
folder_paths.models_dir
latent_preview.get_previewer(_, _)
server.PromptServer.instance.client_id
server.PromptServer.instance.send_progress_text(_, _, _)
server.PromptServer.instance?
server.PromptServer?
"""

# What is asked of objects that come with no type, so that the source does not tell.
OF_OBJECTS = """
comfy.conds.CONDRegular._copy_with(_)
comfy.conds.CONDRegular.cond
comfy.context_windows.IndexListContextHandler.fuse_method
comfy.context_windows.IndexListContextWindow.get_tensor(_, _, dim)
comfy.model_base.BaseModel.get_dtype()
comfy.model_base.BaseModel.latent_format
comfy.model_base.BaseModel.load_model_weights(_, _)
comfy.model_base.BaseModel.memory_required(_)
comfy.model_base.BaseModel.model_sampling
comfy.model_patcher.ModelPatcher.model
comfy.model_patcher.ModelPatcher.model_size()
comfy.model_patcher.ModelPatcher.patches
comfy.model_patcher.ModelPatcher.set_model_unet_function_wrapper(_)
comfy.model_sampling.ModelSamplingDiscrete.sigma_min
comfy.samplers.CFGGuider.cfg
comfy.samplers.CFGGuider.sample(_, _, _, _, callback, denoise_mask, disable_pbar, seed)
comfy.samplers.CFGGuider.set_cfg(_)
comfy.samplers.CFGGuider.set_conds(_, _)
comfy.samplers.KSAMPLER.sample(_, _, _, _, _, _, _, _)
comfy.sd.CLIP.clip_layer(_)
comfy.supported_models.SD_X4Upscaler.set_inference_dtype(_, _)
comfy_api.input_impl.VideoFromFile.as_cropped?
comfy_api.input_impl.VideoFromFile.get_active_trim_window()?
comfy_api.input_impl.VideoFromFile.get_bit_depth()?
comfy_api.input_impl.VideoFromFile.get_components()
comfy_api.input_impl.VideoFromFile.get_dimensions()
comfy_api.input_impl.VideoFromFile.get_stream_source()
comfy_api.input_impl.VideoFromFile.has_pending_frame_edits()?
comfy_api.latest.io.Float.Input(_, default, display_mode, max, min, optional, round, step, tooltip, **)
comfy_api.latest.io.Int.Input(_, control_after_generate, default, max, min, optional, step, tooltip, **)
comfy_extras.nodes_easycache.EasyCacheHolder.clone()
comfy_extras.nodes_easycache.EasyCacheHolder.cumulative_change_rate
comfy_extras.nodes_easycache.EasyCacheHolder.end_t
comfy_extras.nodes_easycache.EasyCacheHolder.skip_current_step
comfy_extras.nodes_easycache.EasyCacheHolder.start_t
comfy_extras.nodes_easycache.EasyCacheHolder.total_steps_skipped
comfy_extras.nodes_easycache.EasyCacheHolder.uuid_cache_diffs
latent_preview.LatentPreviewer.decode_latent_to_preview_image(_, _)
server.PromptServer.send_progress_text(_, _, _)
"""

# Parameters after self in newer sources, where there is a file newer than 0.30.0's.
PATCHER = "model, load_device, offload_device, size=0, weight_inplace_update=False, fast_disk=False"
INPUT = "id, display_name=None, optional=False, tooltip=None, lazy=None"
WIDGET = "socketless=None, force_input=None, extra_dict=None, raw_link=None, advanced=None"
RANGE = "default=None, min=None, max=None, step=None"
OUTPUT = "id=None, display_name=None, tooltip=None, is_output_list=False"
NEWER = {
    "comfy.context_windows.IndexListContextHandler.__init__": "context_schedule, fuse_method, "
    "context_length=1, context_overlap=0, context_stride=1, closed_loop=False, dim=0, "
    "freenoise=False, cond_retain_index_list=[], split_conds_to_windows=False, "
    "latent_retain_index_list=[], causal_window_fix=True",
    "comfy.context_windows.IndexListContextHandler.should_use_context": "model, conds, x_in, "
    "timestep, model_options",
    "comfy.context_windows.IndexListContextHandler.get_resized_cond": "cond_in, x_in, window, "
    "device=None",
    "comfy.context_windows.IndexListContextHandler.evaluate_context_windows": "calc_cond_batch, "
    "model, x_in, conds, timestep, enumerated_context_windows, model_options, window_state, "
    "total_windows=None, device=None, first_device=None",
    "comfy.context_windows.IndexListContextHandler.combine_context_window_results": "x_in, "
    "sub_conds_out, sub_conds, window, window_idx, total_windows, timestep, conds_final, "
    "counts_final, biases_final",
    "comfy.context_windows.IndexListContextWindow.get_tensor": "full, device=None, dim=None, "
    "retain_index_list=[]",
    "comfy.ldm.modules.attention.optimized_attention": "q, k, v, heads, mask=None, "
    "attn_precision=None, skip_reshape=False, skip_output_reshape=False, **kwargs",
    "comfy.model_base.BaseModel.__init__": "model_config, model_type=None, device=None, "
    "unet_model=None",
    "comfy.model_base.BaseModel.load_model_weights": "sd, unet_prefix='', assign=False",
    "comfy.model_base.BaseModel.memory_required": "input_shape, cond_shapes={}",
    "comfy.model_base.SD_X4Upscaler.extra_conds": "**kwargs",
    "comfy.model_base.SD_X4Upscaler.state_dict_for_saving": "unet_state_dict, "
    "clip_state_dict=None, vae_state_dict=None, clip_vision_state_dict=None",
    "comfy.model_management.get_torch_device": "",
    "comfy.model_management.intermediate_device": "",
    "comfy.model_management.is_oom": "e",
    "comfy.model_management.load_models_gpu": "models, memory_required=0, "
    "force_patch_weights=False, minimum_memory_required=None, force_full_load=False",
    "comfy.model_management.soft_empty_cache": "force=False",
    "comfy.model_management.throw_exception_if_processing_interrupted": "",
    "comfy.model_management.unet_dtype": "device=None, model_params=0, supported_dtypes=[], "
    "weight_dtype=None",
    "comfy.model_management.unet_manual_cast": "weight_dtype, inference_device, "
    "supported_dtypes=[]",
    "comfy.model_management.unet_offload_device": "",
    "comfy.model_management.vae_device": "",
    "comfy.model_management.vae_dtype": "device=None, allowed_dtypes=[]",
    "comfy.model_management.vae_offload_device": "",
    "comfy.model_patcher.CoreModelPatcher": PATCHER,
    "comfy.model_patcher.ModelPatcher": PATCHER,
    "comfy.model_patcher.ModelPatcher.add_wrapper_with_key": "wrapper_type, key, wrapper",
    "comfy.model_patcher.ModelPatcher.clone": "disable_dynamic=False, model_override=None, "
    "force_deepcopy=False",
    "comfy.model_patcher.ModelPatcher.is_dynamic": "",
    "comfy.model_patcher.ModelPatcher.model_size": "",
    "comfy.model_patcher.ModelPatcher.remove_wrappers_with_key": "wrapper_type, key",
    "comfy.model_patcher.ModelPatcher.set_model_unet_function_wrapper": "unet_wrapper_function",
    "comfy.patcher_extension.WrapperExecutor.new_class_executor": "original, class_obj, "
    "wrappers, idx=0",
    "comfy.patcher_extension.get_all_wrappers": "wrapper_type, transformer_options, "
    "is_model_options=False",
    "comfy.samplers.CFGGuider.predict_noise": "x, timestep, model_options={}, seed=None",
    "comfy.samplers.CFGGuider.sample": "noise, latent_image, sampler, sigmas, denoise_mask=None, "
    "callback=None, disable_pbar=False, seed=None",
    "comfy.samplers.CFGGuider.set_cfg": "cfg",
    "comfy.samplers.CFGGuider.set_conds": "positive, negative",
    "comfy.samplers.KSAMPLER.__init__": "sampler_function, extra_options={}, inpaint_options={}",
    "comfy.samplers.KSAMPLER.max_denoise": "model_wrap, sigmas",
    "comfy.samplers.KSAMPLER.sample": "model_wrap, sigmas, extra_args, callback, noise, "
    "latent_image=None, denoise_mask=None, disable_pbar=False",
    "comfy.samplers.Sampler.max_denoise": "model_wrap, sigmas",
    "comfy.sd.CLIP": "target=None, embedding_directory=None, no_init=False, tokenizer_data={}, "
    "parameters=0, state_dict=[], model_options={}, disable_dynamic=False",
    "comfy.sd.CLIP.clip_layer": "layer_idx",
    "comfy.sd.load_text_encoder_state_dicts": "state_dicts=[], embedding_directory=None, "
    "clip_type=None, model_options={}, disable_dynamic=False",
    "comfy.supported_models.SD_X4Upscaler.get_model": "state_dict, prefix='', device=None",
    "comfy.supported_models.SD_X4Upscaler.set_inference_dtype": "dtype, manual_cast_dtype, "
    "device=None",
    "comfy.utils.ProgressBar": "total, node_id=None",
    "comfy.utils.ProgressBar.update_absolute": "value, total=None, preview=None",
    "comfy_api.input_impl.VideoFromFile": "file, *, start_time=0, duration=0, crop=None",
    "comfy_api.latest.io.Boolean.Input": f"{INPUT}, default=None, label_on=None, label_off=None, "
    f"{WIDGET}",
    "comfy_api.latest.io.Combo.Input": "id, options=None, display_name=None, optional=False, "
    "tooltip=None, lazy=None, default=None, control_after_generate=None, upload=None, "
    "image_folder=None, remote=None, remote_combo=None, socketless=None, extra_dict=None, "
    "raw_link=None, advanced=None",
    "comfy_api.latest.io.Custom": "io_type",
    "comfy_api.latest.io.Float.Input": f"{INPUT}, {RANGE}, round=None, display_mode=None, "
    f"gradient_stops=None, {WIDGET}",
    "comfy_api.latest.io.Image.Input": f"{INPUT}, extra_dict=None, raw_link=None, advanced=None",
    "comfy_api.latest.io.Image.Output": OUTPUT,
    "comfy_api.latest.io.Int.Input": f"{INPUT}, {RANGE}, control_after_generate=None, "
    f"display_mode=None, {WIDGET}",
    "comfy_api.latest.io.NodeOutput": "*args, ui=None, expand=None, block_execution=None",
    "comfy_api.latest.io.Schema": "node_id, display_name=None, category='sd', inputs=[], "
    "outputs=[], hidden=[], description='', search_aliases=[], is_input_list=False, "
    "is_output_node=False, is_deprecated=False, is_experimental=False, is_dev_only=False, "
    "is_api_node=False, price_badge=None, not_idempotent=False, enable_expand=False, "
    "accept_all_inputs=False, essentials_category=None, has_intermediate_output=False, "
    "loop_boundary=None",
    "comfy_api.latest.io.String.Input": f"{INPUT}, multiline=False, placeholder=None, "
    f"default=None, dynamic_prompts=None, {WIDGET}",
    "comfy_api.latest.ui.PreviewImage": "image, animated=False, cls=None, **kwargs",
    "comfy_api.latest.ui.PreviewText": "value, **kwargs",
    "comfy_api.latest.ui.PreviewVideo": "values, **kwargs",
    "comfy_api.latest.ui.SavedResult": "filename, subfolder, type",
    "folder_paths.add_model_folder_path": "folder_name, full_folder_path, is_default=False",
    "folder_paths.get_filename_list": "folder_name",
    "folder_paths.get_folder_paths": "folder_name",
    "folder_paths.get_full_path": "folder_name, filename",
    "folder_paths.get_input_directory": "",
    "folder_paths.get_output_directory": "",
    "folder_paths.get_temp_directory": "",
    "latent_preview.LatentPreviewer.decode_latent_to_preview_image": "preview_format, x0",
    "latent_preview.get_previewer": "device, latent_format",
    "server.PromptServer.send_progress_text": "text, node_id, sid=None",
}


def lines(text: str) -> list[str]:
    return text.split("\n")[1:-1]


@cache
def used() -> Any:
    return read_pack(ROOT)


def parsed(line: str) -> tuple[str, ast.Call | None, bool]:
    """Name, how it is called, and whether it may be missing."""
    optional = line.endswith("?")
    name, called, passed = line.removesuffix("?").partition("(")
    if not called:
        return name, None, optional
    given = passed.removesuffix(")").split(", ") if passed != ")" else []
    text = ", ".join({"*": "*_", "**": "**_"}.get(g, g if g == "_" else f"{g}=_") for g in given)
    call = ast.parse(f"f({text})", mode="eval").body
    assert isinstance(call, ast.Call)
    return name, call, optional


def called(line: str) -> ast.Call:
    call = parsed(line)[1]
    assert call is not None
    return call


def find(name: str) -> Any:
    """What a dotted name stands for; None for what an object gets when it is made.

    Raises AttributeError if there is no such thing.
    """
    if name.startswith("server."):
        return in_server(name.removeprefix("server."))
    parts = name.split(".")
    count = len(parts)
    while True:
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
            break
        except ModuleNotFoundError:
            count -= 1
            if not count:
                raise
    for part in parts[count:]:
        if inspect.isclass(found) and not hasattr(found, part) and part in attributes(found):
            return None
        found = getattr(found, part)
        if part == "Custom" and part != parts[-1]:
            found = found("ANY")
    return found


@cache
def attributes(cls: type) -> frozenset[str]:
    """What objects of a class get in their own methods, and by annotation."""
    names: set[str] = set(getattr(cls, "__annotations__", {}))
    for base in inspect.getmro(cls)[:-1]:
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return frozenset(names)


def in_server(name: str) -> Any:
    """From the source of ComfyUI's server, which is started by nothing here."""
    import folder_paths

    source = (Path(folder_paths.__file__).parent / "server.py").read_text(encoding="utf-8")
    found: Any = ast.parse(source)
    for part in name.split("."):
        if part == "instance":
            return None
        inside = {n.name: n for n in found.body if hasattr(n, "name")}
        if part not in inside:
            raise AttributeError(name)
        found = inside[part]
    return found


def signature(found: Any) -> inspect.Signature:
    """Of a function, method or class, without self."""
    if isinstance(found, ast.FunctionDef):
        for argument in found.args.args:
            argument.annotation = None
        return of_text(ast.unparse(found.args).removeprefix("self, "))
    if inspect.isclass(found):
        return without_self(inspect.signature(found.__init__))
    if isinstance(inspect.unwrap(found), type(signature)) and "." in found.__qualname__:
        own = inspect.signature(found)
        first = next(iter(own.parameters), None)
        return without_self(own) if first == "self" else own
    return inspect.signature(found)


def without_self(own: inspect.Signature) -> inspect.Signature:
    return own.replace(parameters=list(own.parameters.values())[1:])


def of_text(parameters: str) -> inspect.Signature:
    return inspect.signature(eval(f"lambda {parameters}: None"))


def check_call(own: inspect.Signature, call: ast.Call) -> None:
    """TypeError unless a call can be made."""
    places = [None for a in call.args if not isinstance(a, ast.Starred)]
    keywords = {k.arg: None for k in call.keywords if k.arg is not None}
    spread = len(places) < len(call.args) or len(keywords) < len(call.keywords)
    (own.bind_partial if spread else own.bind)(*places, **keywords)


def test_every_use_is_listed():
    found, listed = used().lines(), set(lines(USED))
    assert lines(USED) == sorted(listed)
    assert not found - listed, "used and not listed: check them in newer ComfyUI as well"
    assert not listed - found, "listed and not used"


@pytest.mark.parametrize("line", [*lines(USED), *lines(OF_OBJECTS)])
def test_it_is_there_and_takes_what_it_is_given(pack, line):
    name, call, optional = parsed(line)
    try:
        found = find(name)
    except (AttributeError, ModuleNotFoundError):
        assert optional, f"this ComfyUI has no {name}"
        return
    if call is not None and found is not None:
        check_call(signature(found), call)


@pytest.mark.parametrize("line", [*lines(USED), *lines(OF_OBJECTS)])
def test_newer_comfyui_takes_it_too(line):
    name, call, _ = parsed(line)
    if call is not None and name in NEWER:
        check_call(of_text(NEWER[name]), call)


def test_weights_are_assigned_where_patchers_stream_them(pack):
    call = called("load(_, _, assign)")
    check_call(of_text(NEWER["comfy.model_base.BaseModel.load_model_weights"]), call)
    if hasattr(find("comfy.model_patcher.ModelPatcher"), "is_dynamic"):
        check_call(signature(find("comfy.model_base.BaseModel.load_model_weights")), call)


def overrides() -> list[Override]:
    return [m for m in used().methods if not m.method.name.startswith("__")]


def check_stands_for(ours: ast.FunctionDef | ast.AsyncFunctionDef, theirs: inspect.Signature):
    """AssertionError unless whoever calls theirs may call ours, by place or by name."""
    places = [a.arg for a in (*ours.args.posonlyargs, *ours.args.args)][1:]
    for i, parameter in enumerate(theirs.parameters.values()):
        kind = parameter.kind
        if kind in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD):
            continue
        if i < len(places) and kind is not kind.KEYWORD_ONLY:
            assert places[i] == parameter.name, f"{places[i]}: it is called {parameter.name}"
        else:
            assert ours.args.kwarg and (ours.args.vararg or kind is kind.KEYWORD_ONLY)
    needed = len(places) - len(ours.args.defaults)
    assert needed <= len(theirs.parameters), "it is called with less"


@pytest.mark.parametrize("ours", overrides(), ids=lambda o: f"{o.place}.{o.method.name}")
def test_a_method_stands_for_comfyuis(pack, ours: Override):
    name = f"{ours.base}.{ours.method.name}"
    try:
        found = find(name)
    except AttributeError:
        found = None
    if inspect.isfunction(found) or inspect.ismethod(found):
        theirs = signature(found)
        # Some take whatever the class below it wants, or are written down with nothing.
        if any(p.kind is not p.VAR_KEYWORD for p in theirs.parameters.values()):
            check_stands_for(ours.method, theirs)
    if name in NEWER and not NEWER[name].startswith("**"):
        check_stands_for(ours.method, of_text(NEWER[name]))


def test_the_check_sees_what_is_wrong(pack):
    with pytest.raises(TypeError):
        check_call(of_text("a, b=1"), called("f(_, _, _)"))
    with pytest.raises(TypeError):
        check_call(of_text("a, b=1"), called("f(_, c)"))
    with pytest.raises(AttributeError):
        find("comfy.model_management.no_such_function")
    with pytest.raises(AttributeError):
        find("comfy.model_patcher.ModelPatcher.no_such_attribute")
    with pytest.raises(AttributeError):
        find("server.PromptServer.no_such_method")
    function = ast.parse("def f(self, x, y): ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    for parameters in ("x", "y, x", "x, y, z"):
        with pytest.raises(AssertionError):
            check_stands_for(function, of_text(parameters))
    check_stands_for(function, of_text("x, y"))


def test_the_reader_finds_uses(tmp_path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "__init__.py").write_text("import folder_paths\n")
    (tmp_path / "nodes" / "new.py").write_text(
        "import comfy.utils\n"
        "import comfy.model_management as mm\n"
        "from comfy.samplers import KSAMPLER\n"
        "class Mine(KSAMPLER):\n"
        "    def go(self, patcher: comfy.model_patcher.ModelPatcher):\n"
        "        bar = comfy.utils.ProgressBar(3, node_id=1)\n"
        "        def inner():\n"
        "            bar.update(1)\n"
        "        judge = getattr(mm, 'is_oom', None)\n"
        "        judge(self.extra_options, *patcher.clone().x)\n"
        "        return super().sample(1)\n"
    )
    assert read_pack(tmp_path).lines() == {
        "comfy.model_management.is_oom(_, *)?",
        "comfy.model_patcher.ModelPatcher",
        "comfy.model_patcher.ModelPatcher.clone()",
        "comfy.samplers.KSAMPLER",
        "comfy.samplers.KSAMPLER.extra_options",
        "comfy.samplers.KSAMPLER.sample(_)",
        "comfy.utils.ProgressBar(_, node_id)",
        "comfy.utils.ProgressBar.update(_)",
    }
