"""Nodes that make control maps of pictures, by the names that people know them by.

They come with the custom nodes comfyui_controlnet_aux; each takes `image` and `resolution`, and has defaults for the
rest. The engine itself has Canny alone.
"""

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
}

# What a ControlNet for several kinds of maps calls each kind (the node SetUnionControlNetType).
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
    "canny": "canny/lineart/anime_lineart/mlsd",
    "lineart": "canny/lineart/anime_lineart/mlsd",
    "lineart_anime": "canny/lineart/anime_lineart/mlsd",
    "mlsd": "canny/lineart/anime_lineart/mlsd",
    "normal": "normal",
    "normalbae": "normal",
    "seg": "segment",
    "segment": "segment",
    "tile": "tile",
    "inpaint": "repaint",
    "repaint": "repaint",
}
