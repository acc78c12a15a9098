"""Pictures and masks of a request: sizes, resize modes, transparency, and the repainted area."""

import base64
import io
from typing import Any

import pytest
from PIL import Image, ImageColor, ImageDraw

from shared.errors import InvalidPicture, InvalidValue
from shared.schema.request import Img2ImgRequest
from shared.web.parsing.generation import ParsedRequest, parse_img2img
from shared.web.parsing.parser import GraphAlpha, ParsingContext
from shared.web.parsing.pictures import upload_name
from shared.web.request_body import Fields
from tests.model_library import OWN, PAINTER, ModelLibrary
from tests.parsing import HALF_MASK, PICTURE, WHITE, context, picture, read, reread
from tests.stack import encoded, open_rgb


def test_denoising_strength_depends_on_the_mask() -> None:
    both = {"image": PICTURE, "mask": WHITE}
    assert picture().sampling.denoise == 0.75
    assert (picture(both).sampling.denoise, reread(both).warnings) == (1.0, [])
    low = reread(both, denoising_strength=0.5)
    assert low.request.sampling.denoise == 0.5
    assert "leaves grey" in low.warnings[0]
    refine = reread(both, denoising_strength=0.5, inpaint_mode="refine")
    assert (refine.request.sampling.denoise, refine.warnings) == (0.5, [])
    assert picture(both, inpaint_mode="refine").sampling.denoise == 0.75


def test_the_inpaint_mode_depends_on_the_checkpoint() -> None:
    both = {"image": PICTURE, "mask": WHITE}

    def mode(**values: Any) -> str:
        inpainting = picture(both, **values).inpainting
        assert inpainting is not None
        return inpainting.mode

    assert mode() == "fill"
    assert mode(model_name=PAINTER) == "model"
    assert mode(model_name=PAINTER, inpaint_mode="refine") == "refine"
    assert "which dreamshaper.safetensors is not" in reread(both, inpaint_mode="model").warnings[0]


def test_picture_and_mask_have_the_size_of_the_request() -> None:
    parsed = reread({"image": PICTURE, "mask": encoded(Image.new("L", (9, 9), 255))}, width=100)
    request = parsed.request
    assert request.inpainting is not None
    assert request.size == request.source.size == request.inpainting.mask.size == (100, 50)
    assert parsed.warnings == ["mask has other proportions (9x9) than input_image and was stretched"]


def test_masks_are_inverted_and_blurred_and_empty_ones_refused() -> None:
    both = {"image": PICTURE, "mask": HALF_MASK}

    def levels(**values: Any) -> tuple[int, int, int]:
        inpainting = picture(both, **values).inpainting
        assert inpainting is not None
        blend = open_rgb(inpainting.blend.png).convert("L")
        return tuple(blend.getpixel((x, 16)) for x in (2, 30, 60))  # type: ignore[return-value]

    assert levels() == (0, 0, 255)
    assert levels(invert_mask=True) == (255, 255, 0)
    blurred = levels(mask_blur=8)
    assert blurred[0] == 0
    assert blurred[2] == 255
    assert 0 < blurred[1] < 255
    with pytest.raises(InvalidPicture, match="has no black in it"):
        picture({"image": PICTURE, "mask": WHITE}, invert_mask=True)


@pytest.mark.parametrize("mode", ["fill", "refine", "model"])
@pytest.mark.parametrize("values", [{}, {"mask_blur": 20}, {"invert_mask": True}, {"only_masked": True}])
def test_the_drawn_area_covers_all_visible_pixels(mode: str, values: dict[str, Any]) -> None:
    """Grey mask pixels show part of the result, so they must be drawn; the engine rounds masks at 0.5."""
    plain = Image.new("RGB", (64, 32), "blue")
    soft = Image.new("L", (64, 32), 0)
    soft.putdata([max(0, x - 20) * 4 for x in range(64)] * 32)
    sizes = {"width": 64, "height": 32} if "only_masked" in values else {}
    request = picture({"image": encoded(plain), "mask": encoded(soft)}, inpaint_mode=mode, **values, **sizes)
    assert request.inpainting is not None
    drawn = open_rgb(request.inpainting.mask.png).convert("L")
    shown = open_rgb(request.inpainting.blend.png).convert("L").resize(drawn.size, Image.Resampling.NEAREST)
    assert {level for _, level in drawn.getcolors() or ()} <= {0, 255}
    for x in range(0, 64, 8):
        visible = shown.crop((x, 0, x + 8, 32)).getbbox() is not None
        assert drawn.crop((x, 0, x + 8, 32)).getextrema() == ((255, 255) if visible else (0, 0))


def test_a_custom_graph_gets_the_mask_with_its_grey_levels() -> None:
    soft = encoded(Image.new("L", (64, 32), 90))
    own = ParsingContext(OWN, ModelLibrary(), {}.get, custom_graph=GraphAlpha())
    request = parse_img2img(Fields({"prompt": "x"}, {"image": PICTURE, "mask": soft}), own).request
    assert request.inpainting is not None
    assert open_rgb(request.inpainting.mask.png).getpixel((9, 9)) == (90, 90, 90)


def test_a_faint_mask_warns_how_much_is_visible() -> None:
    parsed = reread({"image": PICTURE, "mask": encoded(Image.new("L", (64, 32), 102))})
    (warning,) = parsed.warnings
    assert warning.startswith("mask is nowhere brighter than 102 of 255, so at most 40% of the result is visible")


def test_a_mask_that_is_empty_after_resizing_is_refused() -> None:
    wide, mask = Image.new("RGB", (128, 64), "red"), Image.new("L", (128, 64))
    mask.paste(255, (0, 0, 6, 64))
    files = {"image": encoded(wide), "mask": encoded(mask)}
    square = {"width": 64, "height": 64}
    with pytest.raises(InvalidPicture, match="mask is empty in the 64x64 pixels") as error:
        reread(files, **square, resize_mode="crop_and_resize")
    assert error.value.field == "mask"
    for mode in ("just_resize", "fill"):
        assert picture(files, **square, resize_mode=mode).inpainting is not None


def test_only_masked_draws_the_surroundings_and_pastes_them_back() -> None:
    source = Image.new("RGB", (400, 300), "red")
    mask = Image.new("L", source.size)
    ImageDraw.Draw(mask).rectangle((100, 100, 139, 119), fill=255)
    files = {"image": encoded(source), "mask": encoded(mask)}
    request = picture(files, only_masked=True, only_masked_padding=10, width=256, height=256)
    assert request.inpainting is not None
    paste = request.inpainting.paste
    assert paste is not None
    assert (paste.x, paste.y, paste.size, paste.picture.size) == (90, 80, (60, 60), (400, 300))
    assert request.size == request.source.size == request.inpainting.mask.size == (256, 256)
    assert request.inpainting.blend.size == (60, 60)
    assert request.final_size == (400, 300)
    enlarged = picture(files, only_masked=True, width=256, height=256, upscaler="Lanczos", upscale_factor=1.5)
    assert enlarged.final_size == (600, 450)
    with pytest.raises(InvalidValue, match="needs a mask"):
        picture(only_masked=True)
    with pytest.raises(InvalidValue, match="cannot be combined"):
        picture(files, only_masked=True, outpaint_top=8)


def test_outpainting_enlarges_the_picture() -> None:
    request = picture(outpaint_left=16, outpaint_bottom=9, outpaint_feathering=0)
    assert request.size == request.source.size == request.final_size == (80, 41)
    assert request.inpainting is not None
    mask = open_rgb(request.inpainting.mask.png).convert("L")
    assert [mask.getpixel(point) for point in ((0, 0), (15, 0), (16, 0), (40, 31), (40, 32))] == [255, 255, 0, 0, 255]
    assert request.sampling.denoise == 1.0
    with pytest.raises(InvalidValue) as error:
        picture(width=4000, height=64, outpaint_right=2000)
    assert error.value.field == "outpaint_right"


def test_resize_modes() -> None:
    stretched = reread(width=64, height=64)
    assert "stretched" in stretched.warnings[0]
    for mode in ("crop_and_resize", "fill"):
        parsed = reread(width=64, height=64, resize_mode=mode)
        assert (parsed.request.source.size, parsed.warnings) == ((64, 64), [])


def test_a_file_may_be_named_image_or_input_image() -> None:
    assert picture({"input_image": PICTURE}).size == (64, 32)
    with pytest.raises(InvalidPicture, match="input_image is missing"):
        picture({"picture": PICTURE})
    with pytest.raises(InvalidPicture, match="must be text"):
        parse_img2img(Fields({"prompt": "x", "input_image": 5}, {}), context())


def test_the_name_of_an_upload_is_accepted_and_other_names_are_not() -> None:
    name = upload_name(PICTURE)
    parsed = parse_img2img(Fields({"prompt": "x", "input_image": name}, {}), context(**{f"n{name}": PICTURE}))
    assert parsed.raw_uploads == {name: PICTURE}
    with pytest.raises(InvalidPicture, match="does not exist or was deleted"):
        parse_img2img(Fields({"prompt": "x", "input_image": "0" * 64}, {}), context())
    with pytest.raises(InvalidPicture):
        parse_img2img(Fields({"prompt": "x", "input_image": "../" + name}, {}), context(**{f"n{name}": PICTURE}))


def erased(colour: tuple[int, int, int] = (200, 16, 32)) -> bytes:
    """Return a picture of one colour whose right half is transparent."""
    image = Image.new("RGBA", (64, 32), (*colour, 255))
    image.paste((0, 0, 0, 0), (32, 0, 64, 32))
    return encoded(image)


def test_erased_areas_become_white_with_a_warning() -> None:
    parsed = reread({"image": erased()})
    (warning,) = parsed.warnings
    assert "input_image is transparent (50.0% of it): those parts are taken as white" in warning
    assert "and the result is opaque" in warning
    assert "send the same picture as mask too" in warning
    assert open_rgb(parsed.request.source.png).getpixel((60, 9)) == (255, 255, 255)


@pytest.mark.parametrize("invert", [False, True])
def test_an_erased_picture_sent_as_its_own_mask_repaints_the_hole(invert: bool) -> None:
    parsed = reread({"image": erased(), "mask": erased()}, invert_mask=invert)
    assert parsed.request.inpainting is not None
    blend = open_rgb(parsed.request.inpainting.blend.png).convert("L")
    assert (blend.getpixel((60, 9)), blend.getpixel((9, 9))) == ((0, 255) if invert else (255, 0))
    assert any("mask was read by its transparency" in warning for warning in parsed.warnings)


@pytest.mark.parametrize(
    ("unit", "expected"),
    [({}, "black"), ({"control_type": "inpaint"}, "white"), ({"preprocessor": "canny"}, "white")],
)
def test_the_background_of_a_transparent_control_map(unit: dict[str, Any], expected: str) -> None:
    url = f"data:image/png;base64,{base64.b64encode(erased()).decode()}"
    parsed = read(controlnet={"units": [{"model": "canny", **unit, "input_image": url}]}, width=64, height=32)
    assert f"controlnet.units[0].input_image is transparent (50.0% of it): those parts are taken as {expected}" in (
        parsed.warnings
    )
    (control,) = parsed.request.controls
    assert open_rgb(control.picture.png).getpixel((60, 9)) == ImageColor.getrgb(expected)


SHARED = GraphAlpha(source=True, mask=True, shared=True)


def own(files: dict[str, bytes], alpha: GraphAlpha) -> ParsedRequest[Img2ImgRequest]:
    return parse_img2img(
        Fields({"prompt": "x"}, files), ParsingContext(OWN, ModelLibrary(), {}.get, custom_graph=alpha)
    )


def alpha_at(content: bytes, *points: tuple[int, int]) -> list[int]:
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "RGBA"
        return [image.getchannel("A").getpixel(point) for point in points]


def test_a_graph_that_uses_transparency_gets_it_unchanged() -> None:
    parsed = own({"image": erased()}, SHARED)
    assert alpha_at(parsed.request.source.png, (60, 9), (9, 9)) == [0, 255]
    assert parsed.warnings == []


def test_a_mask_becomes_the_transparency_that_the_graph_uses() -> None:
    parsed = own({"image": PICTURE, "mask": HALF_MASK}, SHARED)
    assert alpha_at(parsed.request.source.png, (60, 9), (9, 9)) == [0, 255]
    assert parsed.request.inpainting is not None
    assert parsed.request.inpainting.mask.name == parsed.request.source.name
    # The graph loads a separate picture only for its transparency.
    separate = own({"image": PICTURE, "mask": HALF_MASK}, GraphAlpha(mask=True)).request
    assert separate.inpainting is not None
    assert alpha_at(separate.inpainting.mask.png, (60, 9), (9, 9)) == [0, 255]
    assert open_rgb(separate.source.png).size == (64, 32)


def test_missing_transparency_is_a_warning() -> None:
    for alpha in (SHARED, GraphAlpha(source=True)):
        (warning,) = own({"image": PICTURE}, alpha).warnings
        assert "reads its mask from the transparency of input_image, which has none" in warning
    assert own({"image": PICTURE, "mask": HALF_MASK}, GraphAlpha(source=True)).warnings == []
    warnings = own({"image": erased()}, GraphAlpha()).warnings
    assert any("those parts are taken as white" in warning for warning in warnings)
