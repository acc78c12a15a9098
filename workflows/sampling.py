"""Samples latents: one pass, base and refiner, DPM adaptive in a bounded number of steps, and the hires pass."""

from shared.schema.ranges import MOST_STEPS
from shared.schema.request import GenerationRequest, Sampling
from workflows import nodes
from workflows.finishing import enlarge, vae_decode, vae_encode
from workflows.graph_builder import Graph, Latent, Model
from workflows.loading import Loaded, Prompts

# The logarithm of the noise level falls by about this much over all steps (Stable Diffusion: from 14.6 to 0.03).
LOG_NOISE_RANGE = 6.2
# How often DPM adaptive calls the model in one step.
ORDER = 3


def sample(
    graph: Graph,
    loaded: Loaded,
    prompts: Prompts,
    refiner: tuple[Model, Prompts] | None,
    latent: Latent,
    request: GenerationRequest,
    seed: int,
) -> Latent:
    """The first pass over `latent`: by the base model, and from the requested step on by the refiner."""
    sampling = request.sampling
    if refiner is None or request.refiner is None or sampling.denoise == 0:
        return _pass(graph, loaded.model, prompts, latent, sampling, seed)
    base_steps = request.refiner.begins_at(sampling.steps)
    if base_steps == 0:
        return _pass(graph, *refiner, latent, sampling, seed)
    if base_steps == sampling.steps:
        return _pass(graph, loaded.model, prompts, latent, sampling, seed)
    # For a partial denoise, KSampler runs the last `steps` of this total; KSamplerAdvanced needs the range.
    total = sampling.steps if sampling.denoise >= 1 else int(min(MOST_STEPS, sampling.steps / sampling.denoise))
    start = total - sampling.steps
    switch = start + base_steps
    latent = _steps(graph, loaded.model, prompts, latent, sampling, seed, total, (start, switch), last=False)
    return _steps(graph, *refiner, latent, sampling, seed, total, (switch, total), last=True)


def sample_hires(
    graph: Graph, loaded: Loaded, prompts: Prompts, latent: Latent, request: GenerationRequest, seed: int
) -> Latent:
    """The second pass over the enlarged picture; the same latent if the request has no hires pass."""
    hires = request.hires
    if hires is None:
        return latent
    width, height = request.latent_sizes[-1]
    if hires.latent_method is not None:
        latent = nodes.scale_latent(graph, latent, width, height, hires.latent_method)
    elif hires.upscale is not None:
        image = vae_decode(graph, latent, loaded.vae, request, request.latent_size)
        image = enlarge(graph, image, hires.upscale)
        latent = vae_encode(graph, image, loaded.vae, request, hires.upscale.size)
    return _pass(graph, loaded.model, prompts, latent, hires.sampling, seed)


def _pass(graph: Graph, model: Model, prompts: Prompts, latent: Latent, sampling: Sampling, seed: int) -> Latent:
    if sampling.sampler == "dpm_adaptive":
        return _pass_adaptive(graph, model, prompts, latent, sampling, seed)
    return nodes.ksampler(
        graph,
        model=model,
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latent,
        seed=seed,
        steps=sampling.steps,
        cfg=sampling.cfg,
        sampler_name=sampling.sampler,
        scheduler=sampling.scheduler,
        denoise=sampling.denoise,
    )


def _pass_adaptive(
    graph: Graph, model: Model, prompts: Prompts, latent: Latent, sampling: Sampling, seed: int
) -> Latent:
    """DPM adaptive in exactly `steps` steps. In KSampler, it ignores them, and may take minutes for two."""
    step_size = LOG_NOISE_RANGE * ORDER / sampling.steps
    return nodes.sampler_custom(
        graph,
        model=model,
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latent,
        seed=seed,
        cfg=sampling.cfg,
        sampler=nodes.dpm_adaptive(graph, round(step_size, 4)),
        sigmas=nodes.noise_levels(graph, model, sampling.scheduler, sampling.steps, sampling.denoise),
    )


def _steps(  # noqa: PLR0913, PLR0917 - the inputs of one KSamplerAdvanced node
    graph: Graph,
    model: Model,
    prompts: Prompts,
    latent: Latent,
    sampling: Sampling,
    seed: int,
    total: int,
    span: tuple[int, int],
    *,
    last: bool,
) -> Latent:
    return nodes.ksampler_advanced(
        graph,
        model=model,
        positive=prompts.positive,
        negative=prompts.negative,
        latent_image=latent,
        seed=seed,
        steps=total,
        cfg=sampling.cfg,
        sampler_name=sampling.sampler,
        scheduler=sampling.scheduler,
        start=span[0],
        # Some schedulers make more steps than requested.
        end=MOST_STEPS if last else span[1],
        first=not last,
        last=last,
    )
