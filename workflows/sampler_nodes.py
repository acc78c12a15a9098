"""The ComfyUI nodes that sample, one function each. None takes a mask: that travels on the latent."""

from workflows.graph import Conditioning, Graph, Latent, Model, Sampler, Sigmas


def sample(
    graph: Graph,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
) -> Latent:
    """KSampler: all steps of one pass."""
    node = graph.add(
        "KSampler",
        model=model,
        positive=positive,
        negative=negative,
        latent_image=latent_image,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
    )
    return Latent(node, 0)


def sample_steps(
    graph: Graph,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    start: int,
    end: int,
    first: bool,
    last: bool,
) -> Latent:
    """KSamplerAdvanced: the steps from `start` to `end` of `steps`. The first part adds the noise, the last takes all
    of it away."""
    node = graph.add(
        "KSamplerAdvanced",
        model=model,
        add_noise="enable" if first else "disable",
        noise_seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        positive=positive,
        negative=negative,
        latent_image=latent_image,
        start_at_step=start,
        end_at_step=end,
        return_with_leftover_noise="disable" if last else "enable",
    )
    return Latent(node, 0)


def dpm_adaptive(graph: Graph, h_init: float) -> Sampler:
    """DPM adaptive in even steps of `h_init` (in log-noise): with its three coefficients 0 a step is never refused,
    nor is its length changed."""
    node = graph.add(
        "SamplerDPMAdaptative",
        order=3,
        rtol=0.05,
        atol=0.0078,
        h_init=h_init,
        pcoeff=0.0,
        icoeff=0.0,
        dcoeff=0.0,
        accept_safety=0.81,
        eta=0.0,
        s_noise=1.0,
    )
    return Sampler(node, 0)


def noise_levels(graph: Graph, model: Model, scheduler: str, steps: int, denoise: float) -> Sigmas:
    """The noise levels of `steps` steps."""
    return Sigmas(graph.add("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=denoise), 0)


def sample_custom(
    graph: Graph,
    *,
    model: Model,
    positive: Conditioning,
    negative: Conditioning,
    latent_image: Latent,
    seed: int,
    cfg: float,
    sampler: Sampler,
    sigmas: Sigmas,
) -> Latent:
    """SamplerCustom: a sampling method with parameters of its own."""
    node = graph.add(
        "SamplerCustom",
        model=model,
        add_noise=True,
        noise_seed=seed,
        cfg=cfg,
        positive=positive,
        negative=negative,
        sampler=sampler,
        sigmas=sigmas,
        latent_image=latent_image,
    )
    return Latent(node, 0)
