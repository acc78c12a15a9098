"""Custom nodes with the names and inputs of well-known ones, and simple work to do: put into an engine by a test."""

import torch


class LineArtPreprocessor:
    """Black on white becomes white on black."""

    INPUT_TYPES = classmethod(lambda _: {"required": {"image": ("IMAGE",)}, "optional": {"resolution": ("INT",)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"

    def run(self, image, resolution=512):
        return (1.0 - image,)


class SeamlessTile:
    """The model as it is."""

    INPUT_TYPES = classmethod(
        lambda _: {
            "required": {
                "model": ("MODEL",),
                "tiling": (["enable", "x_only", "y_only", "disable"],),
                "copy_model": (["Make a copy", "Modify in place"],),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "run", "test"

    def run(self, model, tiling, copy_model):
        return (model,)


class CircularVAEDecode:
    """Decodes, and marks the picture with a red first row."""

    INPUT_TYPES = classmethod(
        lambda _: {
            "required": {
                "samples": ("LATENT",),
                "vae": ("VAE",),
                "tiling": (["enable", "x_only", "y_only", "disable"],),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"

    def run(self, samples, vae, tiling):
        image = vae.decode(samples["samples"])
        image[:, 0] = torch.tensor([1.0, 0.0, 0.0])
        return (image,)


class FaceRestoreModelLoader:
    """There is one model."""

    INPUT_TYPES = classmethod(lambda _: {"required": {"model_name": (["codeformer.pth"],)}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("FACERESTORE_MODEL",), "run", "test"

    def run(self, model_name):
        return (model_name,)


class FaceRestoreCFWithModel:
    """Marks the picture with a last row as grey as the fidelity is high."""

    INPUT_TYPES = classmethod(
        lambda _: {
            "required": {
                "facerestore_model": ("FACERESTORE_MODEL",),
                "image": ("IMAGE",),
                "facedetection": (["retinaface_resnet50", "retinaface_mobile0.25"],),
                "codeformer_fidelity": ("FLOAT", {"default": 0.5, "min": 0, "max": 1}),
            }
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("IMAGE",), "run", "test"

    def run(self, facerestore_model, image, facedetection, codeformer_fidelity):
        image = image.clone()
        image[:, -1] = codeformer_fidelity
        return (image,)


NODE_CLASS_MAPPINGS = {
    each.__name__: each
    for each in (
        LineArtPreprocessor,
        SeamlessTile,
        CircularVAEDecode,
        FaceRestoreModelLoader,
        FaceRestoreCFWithModel,
    )
}
