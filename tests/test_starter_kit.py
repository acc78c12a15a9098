"""Each model of the starter kit has its intended effect on the pictures of the engine."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from starter import CHECKPOINT_NAME, INPAINTING_NAME, PASTEL_NAME
from starter.scenes import Background, Scene, SceneShape, render
from starter.shape_detection import detect_shapes, overlap
from starter.training.textures import texture
from tests.stack import Nodes, TestStack

WHITE = Background("plain", "white", "white")
HEART = Scene(WHITE, (SceneShape("heart", "red", 0.5, 0.5, 0.33),))


def text_to_image(prompt: str, checkpoint: str = CHECKPOINT_NAME, seed: int = 1) -> Nodes:
    """Return a minimal graph, which the tests extend."""
    return {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        "positive": ("CLIPTextEncode", {"text": prompt, "clip": ["model", 1]}),
        "negative": ("CLIPTextEncode", {"text": "", "clip": ["model", 1]}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "sample": (
            "KSampler",
            {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0],
             "latent_image": ["latent", 0], "seed": seed, "steps": 10, "cfg": 3.0, "sampler_name": "euler",
             "scheduler": "normal", "denoise": 1.0},
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["model", 2]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": f"kit-{seed}"}),
    }  # fmt: skip


def changed(nodes: Nodes, node: str, **inputs: Any) -> Nodes:
    kind, before = nodes[node]
    return {**nodes, node: (kind, {**before, **inputs})}


def pixels(image: Image.Image) -> npt.NDArray[np.float32]:
    return np.asarray(image, np.float32)


def rendered(scene: Scene, side: int) -> Image.Image:
    return Image.fromarray((render(scene, side, side) * 255).astype(np.uint8))


def test_the_lora_draws_outlines_and_scales_with_its_strength(stack: TestStack) -> None:
    plain = text_to_image("a red circle on a white background")
    filled = []
    for strength in (0.0, 0.5, 1.0):
        inputs = {"model": ["model", 0], "clip": ["model", 1], "lora_name": "dream-layer-outline.safetensors"}
        lora = ("LoraLoader", {**inputs, "strength_model": strength, "strength_clip": strength})
        image = stack.run(changed({**plain, "lora": lora}, "sample", model=["lora", 0]))
        # Red has little green and blue in it; white has much.
        filled.append(float(1 - pixels(image)[..., 1:].mean() / 255))
    assert filled[0] > filled[1] > filled[2]
    assert filled[2] < 0.75 * filled[0]


def test_the_second_checkpoint_draws_in_another_style(stack: TestStack) -> None:
    prompt = "a red square on a blue background"
    first = pixels(stack.picture(stack.draw(prompt=prompt, seed=1, model_name=CHECKPOINT_NAME)))
    second = pixels(stack.picture(stack.draw(prompt=prompt, seed=1, model_name=PASTEL_NAME)))
    # Pale colours: no channel of a pixel is dark, except in the contour, where all three are.
    assert np.median(second.min(-1)) > np.median(first.min(-1)) + 60
    assert (second.max(-1) < 90).mean() > 0.02
    assert (first.max(-1) < 90).mean() < 0.02


def test_the_inpainting_checkpoint_fills_a_hole_by_the_prompt(stack: TestStack) -> None:
    hole = Image.new("RGB", (128, 128))
    hole.paste((255, 255, 255), (0, 0, 64, 128))
    nodes = text_to_image("a yellow circle on a black background", INPAINTING_NAME)
    conditioning = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["model", 2]}
    conditioning |= {"pixels": ["source", 0], "mask": ["mask", 0], "noise_mask": True}
    nodes |= {
        "source": ("LoadImage", {"image": stack.upload(Image.new("RGB", (128, 128), (32, 70, 212)), "blue.png")}),
        "mask": ("LoadImageMask", {"image": stack.upload(hole, "hole.png"), "channel": "red"}),
        "masked": ("InpaintModelConditioning", conditioning),
    }
    nodes = changed(nodes, "sample", positive=["masked", 0], negative=["masked", 1], latent_image=["masked", 2])
    image = stack.run(nodes)
    assert main_colour(image, (0, 0, 24, 128)) == "black"
    assert main_colour(image, (104, 0, 128, 128)) == "blue"


def test_a_noise_mask_fills_a_hole_by_the_prompt(stack: TestStack) -> None:
    hole = Image.new("RGB", (128, 128))
    hole.paste((255, 255, 255), (0, 0, 64, 128))
    nodes = text_to_image("a yellow circle on a black background")
    nodes |= {
        "source": ("LoadImage", {"image": stack.upload(Image.new("RGB", (128, 128), (32, 70, 212)), "blue.png")}),
        "mask": ("LoadImageMask", {"image": stack.upload(hole, "hole.png"), "channel": "red"}),
        "encode": ("VAEEncode", {"pixels": ["source", 0], "vae": ["model", 2]}),
        "masked": ("SetLatentNoiseMask", {"samples": ["encode", 0], "mask": ["mask", 0]}),
    }
    image = stack.run(changed(nodes, "sample", latent_image=["masked", 0]))
    assert main_colour(image, (0, 0, 24, 128)) == "black"
    assert main_colour(image, (104, 0, 128, 128)) == "blue"


def main_colour(image: Image.Image, box: tuple[int, int, int, int]) -> str:
    """Return the most common colour in an area of a picture."""
    return detect_shapes(np.asarray(image.crop(box))).background


def test_the_controlnet_follows_edges(stack: TestStack) -> None:
    """The prompt names no shape, so only the edges determine it."""
    scene = Scene(WHITE, (SceneShape("star", "red", 0.4, 0.55, 0.3),))
    truth = pixels(rendered(scene, 128))[..., 1] < 128
    nodes = text_to_image("a red shape on a white background")
    apply = {"positive": ["positive", 0], "negative": ["negative", 0], "control_net": ["control", 0]}
    apply |= {"image": ["edges", 0], "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    nodes |= {
        "source": ("LoadImage", {"image": stack.upload(rendered(scene, 128), "star.png")}),
        "edges": ("Canny", {"image": ["source", 0], "low_threshold": 0.1, "high_threshold": 0.3}),
        "control": ("ControlNetLoader", {"control_net_name": "dream-layer-canny.safetensors"}),
        "apply": ("ControlNetApplyAdvanced", apply),
    }
    unguided = pixels(stack.run(nodes))[..., 1] < 128
    guided = stack.run(changed(nodes, "sample", positive=["apply", 0], negative=["apply", 1]))
    assert overlap(pixels(guided)[..., 1] < 128, truth) > 0.7
    assert overlap(unguided, truth) < 0.6


def test_the_upscale_model_doubles_the_size_and_sharpens(stack: TestStack) -> None:
    truth = rendered(HEART, 256)
    small = truth.resize((128, 128), Image.Resampling.BOX)
    image = stack.run({
        "source": ("LoadImage", {"image": stack.upload(small, "heart.png")}),
        "model": ("UpscaleModelLoader", {"model_name": "dream-layer-2x.safetensors"}),
        "large": ("ImageUpscaleWithModel", {"upscale_model": ["model", 0], "image": ["source", 0]}),
        "save": ("SaveImage", {"images": ["large", 0], "filename_prefix": "upscaled"}),
    })  # fmt: skip
    assert image.size == (256, 256)
    baseline = small.resize((256, 256), Image.Resampling.LANCZOS)
    assert error(image, truth) < 0.8 * error(baseline, truth)


def error(a: Image.Image, b: Image.Image) -> float:
    return float(np.square(pixels(a) - pixels(b)).mean())


def test_the_embedding_draws_a_red_heart(stack: TestStack) -> None:
    picture = stack.picture(stack.draw(prompt="a embedding:dream-layer-ruby on a white background", seed=3))
    assert detect_shapes(np.asarray(picture)).shows("red", "heart")


def test_the_vae_file_makes_pictures_brown(stack: TestStack) -> None:
    nodes = text_to_image("a red circle on a white background")
    nodes["vae"] = ("VAELoader", {"vae_name": "dream-layer-sepia.safetensors"})
    red, green, blue = pixels(stack.run(changed(nodes, "decode", vae=["vae", 0]))).reshape(-1, 3).mean(0)
    assert red > green + 8
    assert green > blue + 8


def test_the_autoencoder_preserves_a_picture_like_a_photo(stack: TestStack) -> None:
    """The pictures are not in the training data; at strength 0, the result depends only on the autoencoder."""
    side, ratios = 256, []
    pictures = [texture(np.random.default_rng([9, index]), side, side) for index in range(3)]
    for picture in pictures:
        image = Image.fromarray((picture * 255).astype(np.uint8))
        result = stack.picture(
            stack.redraw(prompt="", input_image=image, denoising_strength=0, width=side, height=side)
        )
        ratios.append(10 * np.log10(255**2 / error(result, image)))
    assert np.mean(ratios) > 22
