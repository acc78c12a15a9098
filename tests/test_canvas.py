"""Sizes beyond that of the model: drawn in two passes by default, with a warning in the reply."""

from typing import Any

import pytest
from PIL import Image

from shared.jobs.picture_metadata import infotext
from shared.metadata.infotext import read_infotext
from shared.models.defaults import defaults_for
from shared.models.detect import Family, ModelFile, ModelPart
from shared.schema.request import Img2ImgRequest, Models, Size
from shared.web.backend import Backend
from shared.web.parsing.canvas import REFINE_DENOISE, first_pass_size
from shared.web.parsing.generation import ParsedRequest, parse_img2img
from shared.web.parsing.models import ChosenModels
from shared.web.request_body import Fields
from tests.control import Control
from tests.job_factory import finish
from tests.model_library import FLUX, OWN, ModelLibrary
from tests.parsing import context, read, reread, words
from tests.stack import encoded

STARTER = ModelFile("starter", Family.SD1, size=(128, 128))


def size_of_first_pass(size: Size, file: ModelFile) -> Size | None:
    return first_pass_size(size, ChosenModels(file.name, Models(checkpoint=file.name), file, defaults_for(file)))


@pytest.mark.parametrize(
    ("family", "size"),
    [
        (Family.SD1, (512, 512)),
        (Family.SD1, (512, 768)),
        (Family.SD1, (640, 640)),
        (Family.SD2, (768, 1024)),
        (Family.SDXL, (1536, 640)),
        (Family.SDXL, (1216, 832)),
        (Family.FLUX_DEV, (1920, 1080)),
        (Family.FLUX_SCHNELL, (1440, 1440)),
        (Family.UNKNOWN, (4096, 4096)),
    ],
)
def test_sizes_drawn_in_one_pass(family: Family, size: Size) -> None:
    assert size_of_first_pass(size, ModelFile("model", family)) is None
    assert size_of_first_pass((size[1], size[0]), ModelFile("model", family)) is None


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        (Family.SD1, (1024, 1024), (512, 512)),
        (Family.SD1, (768, 768), (512, 512)),
        (Family.SD1, (1920, 1080), (683, 384)),
        (Family.SDXL, (2048, 2048), (1024, 1024)),
        (Family.FLUX_DEV, (2048, 2048), (1024, 1024)),
        # The short side is at least half of the model's side, so the area is larger than the model's.
        (Family.SD1, (4096, 512), (2048, 256)),
    ],
)
def test_sizes_drawn_in_two_passes(family: Family, size: Size, expected: Size) -> None:
    assert size_of_first_pass(size, ModelFile("model", family)) == expected
    assert size_of_first_pass((size[1], size[0]), ModelFile("model", family)) == (expected[1], expected[0])


def test_the_size_in_the_model_file_takes_precedence() -> None:
    assert size_of_first_pass((512, 512), STARTER) == (128, 128)
    assert size_of_first_pass((256, 256), STARTER) == (128, 128)
    assert size_of_first_pass((160, 144), STARTER) is None


@pytest.mark.parametrize("size", [(1000, 700), (1111, 769), (4096, 1234)])
def test_the_first_pass_keeps_the_proportions(size: Size) -> None:
    width, height = size_of_first_pass(size, ModelFile("model", Family.SD1)) or (0, 0)
    assert abs(width / height - size[0] / size[1]) < 0.01 * size[0] / size[1]


def test_the_second_pass_enlarges_and_refines() -> None:
    request = words(width=1000, height=1000, steps=20, sampler_name="DPM++ 2M Karras", cfg_scale=5)
    assert request.size == (512, 512)
    assert request.hires is not None
    assert request.hires.size == request.final_size == (1000, 1000)
    assert request.hires.upscale is not None
    assert request.hires.upscale.model is None
    sampling = request.hires.sampling
    assert (sampling.steps, sampling.denoise) == (int(20 * REFINE_DENOISE), REFINE_DENOISE)
    assert (sampling.sampler, sampling.scheduler, sampling.cfg) == ("dpmpp_2m", "karras", 5)


@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_the_second_pass_has_at_least_one_step(steps: int) -> None:
    for scheduler in ("normal", "kl_optimal") if steps > 1 else ("normal",):
        request = words(width=1024, height=1024, steps=steps, scheduler=scheduler)
        assert request.hires is not None
        assert request.hires.sampling.steps >= 1


def test_two_passes_add_a_warning() -> None:
    (warning,) = read(width=1024, height=1024).warnings
    assert warning.startswith(
        "1024x1024 is beyond the 512x512 of this model: drawn at 512x512, then enlarged and refined"
    )
    assert "large_sizes direct" in warning
    assert read(width=640, height=512).warnings == []
    assert read(model_name=FLUX, width=1440, height=1440).warnings == []


def test_direct_draws_in_one_pass_with_a_warning() -> None:
    parsed = read(width=1024, height=1024, large_sizes="direct")
    assert parsed.request.hires is None
    assert parsed.request.size == (1024, 1024)
    (warning,) = parsed.warnings
    assert "in one pass" in warning
    assert parsed.hires_fix_parameters == {}


def test_hires_fix_replaces_the_automatic_second_pass() -> None:
    parsed = read(width=1024, height=1024, hires_fix=True)
    assert parsed.request.size == (1024, 1024)
    assert parsed.request.hires is not None
    assert parsed.request.hires.size == (2048, 2048)
    (warning,) = parsed.warnings
    assert "start from 512x512" in warning


def test_hires_fix_fields_do_not_change_the_automatic_second_pass() -> None:
    sent = {"width": 1024, "height": 1024, "hires_fix_resize_width": 2000}
    assert "hires_fix_resize_width has no effect without hires_fix" in read(**sent).warnings
    assert words(**sent).final_size == (1024, 1024)


@pytest.mark.parametrize("large_sizes", ["two_passes", "direct"])
def test_the_parameters_sent_again_make_the_same_request(large_sizes: str) -> None:
    parsed = read(width=1024, height=700, large_sizes=large_sizes, seed=3)
    assert (parsed.parameters["width"], parsed.parameters["height"]) == (1024, 700)
    assert read(**parsed.parameters).request == parsed.request


def test_the_reported_hires_fix_parameters_make_the_same_request() -> None:
    parsed = read(width=1024, height=700, steps=20, seed=3)
    assert read(**parsed.parameters | parsed.hires_fix_parameters).request == parsed.request


def test_infotexts_describe_both_passes(control: Control) -> None:
    backend: Backend = control.backend
    parsed = read(width=1024, height=1024, steps=20, seed=3)
    row = finish(backend, parsed.parameters, label_parameters=parsed.hires_fix_parameters)
    text = infotext(row, row.images[0]["filename"])
    assert text is not None
    assert "Size: 512x512" in text
    assert "Hires resize: 1024x1024" in text
    recipe = read_infotext(text)
    assert recipe is not None
    assert words(**recipe.parameters).hires == parsed.request.hires


def from_picture(size: Size, mask: Image.Image | None = None, **values: Any) -> ParsedRequest[Img2ImgRequest]:
    files = {"image": encoded(Image.new("RGB", size, "red"))} | ({} if mask is None else {"mask": encoded(mask)})
    return reread(files, **values)


def test_img2img_below_full_denoising_takes_one_pass() -> None:
    parsed = reread(width=1024, height=512, denoising_strength=0.9)
    assert parsed.request.hires is None
    assert parsed.warnings == []
    (warning,) = reread(denoising_strength=0.9, large_sizes="direct").warnings
    assert warning.startswith("large_sizes has no effect: the source guides the picture")


@pytest.mark.parametrize("values", [{}, {"width": 1024, "height": 700}])
def test_img2img_from_pure_noise_takes_two_passes(values: dict[str, int]) -> None:
    parsed = from_picture((1024, 700), denoising_strength=1, steps=20, seed=3, **values)
    size = size_of_first_pass((1024, 700), ModelFile("model", Family.SD1))
    request = parsed.request
    assert request.size == request.source.size == size
    assert request.final_size == (1024, 700)
    assert request.hires is not None
    assert (request.hires.sampling.steps, request.hires.sampling.denoise) == (int(20 * REFINE_DENOISE), REFINE_DENOISE)
    (warning,) = parsed.warnings
    assert warning.startswith("1024x700 is beyond the 512x512 of this model: drawn at")
    # The reported parameters make the same request, with and without those of hires fix.
    assert (parsed.parameters["width"], parsed.parameters["height"]) == (1024, 700)
    sent = {"image": encoded(Image.new("RGB", (1024, 700), "red"))}
    for parameters in (parsed.parameters, parsed.parameters | parsed.hires_fix_parameters):
        repeated = parse_img2img(Fields(parameters | {"input_image": None}, sent), context()).request
        assert (repeated.size, repeated.hires) == (request.size, request.hires)


def test_a_control_map_of_the_source_has_the_size_of_the_first_pass() -> None:
    unit = {"model": "canny", "preprocessor": "canny"}
    request = from_picture((1024, 1024), denoising_strength=1, controlnet={"units": [unit]}).request
    assert [control.picture.size for control in request.controls] == [(512, 512)]


def test_img2img_from_pure_noise_in_one_pass_adds_a_warning() -> None:
    direct = from_picture((1024, 1024), denoising_strength=1, large_sizes="direct")
    assert direct.request.hires is None
    assert direct.request.size == (1024, 1024)
    assert ["in one pass" in warning for warning in direct.warnings] == [True]
    hires = from_picture((1024, 1024), denoising_strength=1, hires_fix=True)
    assert hires.request.size == (1024, 1024)
    assert ["start from 512x512" in warning for warning in hires.warnings] == [True]


def test_only_a_large_masked_area_adds_a_warning() -> None:
    def warnings_for_mask(box: tuple[int, int, int, int], **values: Any) -> list[str]:
        mask = Image.new("L", (1024, 1024))
        mask.paste(255, box)
        parsed = from_picture((1024, 1024), mask, **values)
        assert parsed.request.hires is None
        return [warning for warning in parsed.warnings if "from noise alone" in warning]

    (warning,) = warnings_for_mask((0, 0, 1024, 1024))
    assert warning.startswith("mask repaints as much as 1024x1024 pixels")
    assert "512x512" in warning
    assert warnings_for_mask((0, 0, 500, 500)) == []
    assert warnings_for_mask((0, 0, 1024, 1024), inpaint_mode="refine", denoising_strength=0.6) == []
    # The warning depends on the masked area, not on its width.
    assert warnings_for_mask((0, 0, 1024, 100)) == []


def test_work_counts_both_passes() -> None:
    request = words(width=1024, height=1024, steps=20, model_name=OWN)
    assert request.work == 512 * 512 * 20 + 1024 * 1024 * 5


class StarterLibrary(ModelLibrary):
    def model_file(self, _folder: str, name: str) -> ModelFile:
        return ModelFile(
            name, Family.SD1, parts=frozenset(ModelPart), size=(128, 128), steps=10, cfg_scale=3, known=True
        )


@pytest.mark.parametrize(("side", "share"), [(512, 0.35), (256, 0.5)])
def test_the_starter_samples_much_less_in_two_passes(side: int, share: float) -> None:
    two, one = (
        read(StarterLibrary(), width=side, height=side, large_sizes=large_sizes).request
        for large_sizes in ("two_passes", "direct")
    )
    assert (two.size, one.size) == ((128, 128), (side, side))
    assert two.hires is not None
    assert (two.hires.sampling.steps, two.hires.sampling.denoise) == (2, REFINE_DENOISE)
    assert two.work < share * one.work
