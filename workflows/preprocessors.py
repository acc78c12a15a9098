"""The nodes that make control maps from pictures, by their common names, and the types of control maps.

All but Canny come with the custom nodes comfyui_controlnet_aux. Each of those takes `image` and `resolution`, and has
defaults for its other inputs.
"""

from shared.schema.choices import find_choice

PACKAGE = "comfyui_controlnet_aux"

PREPROCESSORS = {
    "openpose": "OpenposePreprocessor",
    "dwpose": "DWPreprocessor",
    "depth": "DepthAnythingPreprocessor",
    "depth_anything_v2": "DepthAnythingV2Preprocessor",
    "depth_midas": "MiDaS-DepthMapPreprocessor",
    "depth_zoe": "Zoe-DepthMapPreprocessor",
    "depth_leres": "LeReS-DepthMapPreprocessor",
    "normalbae": "BAE-NormalMapPreprocessor",
    "lineart": "LineArtPreprocessor",
    "lineart_anime": "AnimeLineArtPreprocessor",
    "softedge": "HEDPreprocessor",
    "hed": "HEDPreprocessor",
    "pidinet": "PiDiNetPreprocessor",
    "mlsd": "M-LSDPreprocessor",
    "scribble": "ScribblePreprocessor",
    "seg": "OneFormer-ADE20K-SemSegPreprocessor",
    "mediapipe_face": "MediaPipe-FaceMeshPreprocessor",
    "tile": "TilePreprocessor",
    "shuffle": "ShufflePreprocessor",
    "color": "ColorPreprocessor",
    "lineart_standard": "LineartStandardPreprocessor",
    "scribble_hed": "FakeScribblePreprocessor",
    "scribble_xdog": "Scribble_XDoG_Preprocessor",
    "teed": "TEEDPreprocessor",
    "seg_coco": "OneFormer-COCO-SemSegPreprocessor",
    "seg_uniformer": "UniFormer-SemSegPreprocessor",
    "densepose": "DensePosePreprocessor",
    "animal_openpose": "AnimalPosePreprocessor",
}

# The types of SetUnionControlNetType, which tells a union ControlNet what its map shows.
UNION_TYPES = {
    "openpose": "openpose",
    "dwpose": "openpose",
    "depth": "depth",
    "depth_anything_v2": "depth",
    "depth_midas": "depth",
    "depth_zoe": "depth",
    "depth_leres": "depth",
    "softedge": "hed/pidi/scribble/ted",
    "hed": "hed/pidi/scribble/ted",
    "pidinet": "hed/pidi/scribble/ted",
    "scribble": "hed/pidi/scribble/ted",
    "scribble_hed": "hed/pidi/scribble/ted",
    "scribble_xdog": "hed/pidi/scribble/ted",
    "teed": "hed/pidi/scribble/ted",
    "canny": "canny/lineart/anime_lineart/mlsd",
    "lineart": "canny/lineart/anime_lineart/mlsd",
    "lineart_anime": "canny/lineart/anime_lineart/mlsd",
    "lineart_standard": "canny/lineart/anime_lineart/mlsd",
    "mlsd": "canny/lineart/anime_lineart/mlsd",
    "normal": "normal",
    "normalbae": "normal",
    "seg": "segment",
    "seg_coco": "segment",
    "seg_uniformer": "segment",
    "segment": "segment",
    "tile": "tile",
    "inpaint": "repaint",
    "repaint": "repaint",
}

# Control types in the menus of other programs that name neither a preprocessor nor a union type.
OTHER_TYPES = (
    *("all", "auto", "default", "ip2p", "reference", "recolor", "revision", "t2i-adapter", "ip-adapter", "instant-id"),
    *("photomaker", "pulid", "sparsectrl"),
)

# Synonyms of preprocessors and control types in the web page and in AUTOMATIC1111's ControlNet extension.
SYNONYMS = {
    "dw_openpose_full": "dwpose",
    "dw_openpose": "dwpose",
    "openpose_full": "openpose",
    "pose": "openpose",
    "depth_anything": "depth",
    "midas": "depth_midas",
    "zoe": "depth_zoe",
    "leres": "depth_leres",
    "normal_bae": "normalbae",
    "normal_map": "normalbae",
    "lineart_realistic": "lineart",
    "softedge_hed": "hed",
    "softedge_hedsafe": "hed",
    "softedge_pidinet": "pidinet",
    "softedge_pidisafe": "pidinet",
    "softedge_teed": "teed",
    "scribble/sketch": "scribble",
    "sketch": "scribble",
    "tile/blur": "tile",
    "blur": "tile",
    "soft_edge": "softedge",
    "line_art": "lineart",
    "mlsd_lines": "mlsd",
    "depth_map": "depth",
    "canny_edges": "canny",
    "canny_edge": "canny",
    "instruct_pix2pix": "ip2p",
    "instructp2p": "ip2p",
    "pix2pix": "ip2p",
    "adapter": "t2i-adapter",
    "ipadapter_plus": "ip-adapter",
    "segmentation": "seg",
    "seg_ofade20k": "seg",
    "seg_ofcoco": "seg_coco",
    "seg_ufade20k": "seg_uniformer",
    "tile_resample": "tile",
    "t2ia_color_grid": "color",
}


def preprocessor_name(text: str) -> str:
    """The name of a preprocessor or control type, from any spelling; an unknown one in lower case."""
    return find_choice(text, ("none", "canny", *PREPROCESSORS, *UNION_TYPES, *OTHER_TYPES), SYNONYMS) or text.lower()


def is_control_type(text: str) -> bool:
    """Whether a control type is known, in any spelling."""
    return preprocessor_name(text) in ("none", "canny", *PREPROCESSORS, *UNION_TYPES, *OTHER_TYPES)
