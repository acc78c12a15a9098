"""The node classes of ComfyUI 0.30 that have been reviewed, by the module that defines them.

The questions for each class: does it run, format or evaluate a text of the client; does it read or write files that the
graph names; can one number make it work for hours without a warning? `node_policy.py` refuses or limits the classes for
which the answer is yes. One review by people does not prove that nothing was missed.

A class that is not listed is refused until it has been reviewed. A test compares this list with the running engine.
"""

_BY_MODULE = """
nodes: CLIPLoader, CLIPSetLastLayer, CLIPTextEncode, CLIPVisionEncode, CLIPVisionLoader, CheckpointLoader,
    CheckpointLoaderSimple, ConditioningAverage, ConditioningCombine, ConditioningConcat, ConditioningMultiply,
    ConditioningSetArea, ConditioningSetAreaPercentage, ConditioningSetAreaStrength, ConditioningSetMask,
    ConditioningSetTimestepRange, ConditioningZeroOut, ControlNetApply, ControlNetApplyAdvanced, ControlNetLoader,
    DiffControlNetLoader, DiffusersLoader, DualCLIPLoader, EmptyImage, EmptyLatentImage, GLIGENLoader,
    GLIGENTextBoxApply, ImageBatch, ImageInvert, ImagePadForOutpaint, ImageScale, ImageScaleBy,
    InpaintModelConditioning, KSampler, KSamplerAdvanced, LatentBlend, LatentComposite, LatentCrop, LatentFlip,
    LatentFromBatch, LatentRotate, LatentUpscale, LatentUpscaleBy, LoadImage, LoadImageMask, LoadImageOutput,
    LoadLatent, LoraLoader, LoraLoaderModelOnly, PreviewImage, RepeatLatentBatch, SaveImage, SaveLatent,
    SetLatentNoiseMask, StyleModelApply, StyleModelLoader, UNETLoader, VAEDecode, VAEDecodeTiled, VAEEncode,
    VAEEncodeForInpaint, VAEEncodeTiled, VAELoader, unCLIPCheckpointLoader, unCLIPConditioning
nodes_ace: EmptyAceStep1.5LatentAudio, EmptyAceStepLatentAudio, ReferenceTimbreAudio, TextEncodeAceStepAudio,
    TextEncodeAceStepAudio1.5
nodes_advanced_samplers: SamplerEulerCFGpp, SamplerLCM, SamplerLCMUpscale
nodes_align_your_steps: AlignYourStepsScheduler
nodes_apg: APG
nodes_ar_video: ARVideoI2V, EmptyARVideoLatent, SamplerARVideo
nodes_attention_multiply: CLIPAttentionMultiply, UNetCrossAttentionMultiply, UNetSelfAttentionMultiply,
    UNetTemporalAttentionMultiply
nodes_audio: AudioAdjustVolume, AudioConcat, AudioEqualizer3Band, AudioMerge, ConditioningStableAudio, EmptyAudio,
    EmptyLatentAudio, JoinAudioChannels, LoadAudio, PreviewAudio, RecordAudio, SaveAudio, SaveAudioAdvanced,
    SaveAudioMP3, SaveAudioOpus, SplitAudioChannels, TrimAudioDuration, VAEDecodeAudio, VAEDecodeAudioTiled,
    VAEEncodeAudio
nodes_audio_encoder: AudioEncoderEncode, AudioEncoderLoader
nodes_bernini: BerniniConditioning
nodes_bg_removal: LoadBackgroundRemovalModel, RemoveBackground
nodes_boogu: TextEncodeBooguEdit
nodes_bounding_boxes: CreateBoundingBoxes
nodes_camera_trajectory: WanCameraEmbedding
nodes_canny: Canny
nodes_cfg: CFGNorm, CFGZeroStar
nodes_chroma_radiance: ChromaRadianceOptions, EmptyChromaRadianceLatentImage
nodes_clip_sdxl: CLIPTextEncodeSDXL, CLIPTextEncodeSDXLRefiner
nodes_color: ColorToRGBInt
nodes_compositing: JoinImageWithAlpha, PorterDuffImageComposite, SplitImageWithAlpha
nodes_cond: CLIPTextEncodeControlnet, T5TokenizerOptions
nodes_context_windows: ContextWindowsManual, LTXVContextWindows, WanContextWindowsManual
nodes_controlnet: ControlNetInpaintingAliMamaApply, SetUnionControlNetType
nodes_cosmos: CosmosImageToVideoLatent, CosmosPredict2ImageToVideoLatent, EmptyCosmosLatentVideo
nodes_curve: CurveEditor, ImageHistogram
nodes_custom_sampler: AddNoise, BasicGuider, BasicScheduler, BetaSamplingScheduler, CFGGuider, CFGOverride,
    DisableNoise, DualCFGGuider, DualModelGuider, ExponentialScheduler, ExtendIntermediateSigmas, FlipSigmas,
    KSamplerSelect, KarrasScheduler, LaplaceScheduler, ManualSigmas, PolyexponentialScheduler, RandomNoise,
    SDTurboScheduler, SamplerCustom, SamplerCustomAdvanced, SamplerDPMAdaptative, SamplerDPMPP_2M_SDE,
    SamplerDPMPP_2S_Ancestral, SamplerDPMPP_3M_SDE, SamplerDPMPP_SDE, SamplerER_SDE, SamplerEulerAncestral,
    SamplerEulerAncestralCFGPP, SamplerLMS, SamplerSASolver, SamplerSEEDS2, SamplingPercentToSigma, SetFirstSigma,
    SplitSigmas, SplitSigmasDenoise, VPScheduler
nodes_dataset: AddTextPrefix, AddTextSuffix, AdjustBrightness, AdjustContrast, CenterCropImages, ImageDeduplication,
    ImageGrid, LoadImageDataSetFromFolder, LoadImageTextDataSetFromFolder, LoadTrainingDataset,
    LoadVideoDataSetFromFolder, LoadVideoTextDataSetFromFolder, MakeTrainingDataset, MergeImageLists,
    MergeTextLists, NormalizeImages, RandomCropImages, ReplaceText, ResizeImagesByLongerEdge,
    ResizeImagesByShorterEdge, ResolutionBucket, SaveImageDataSetToFolder, SaveImageTextDataSetToFolder,
    SaveTrainingDataset, ShuffleDataset, ShuffleImageTextDataset, ShuffleVideoDataset, ShuffleVideoTextDataset,
    StripWhitespace, TextToLowercase, TextToUppercase, TruncateText, VideoFrameSample, VideoRandomTemporalCrop,
    VideoTemporalCrop
nodes_depth_anything_3: DA3GeometryToMesh, DA3Inference, DA3Render, LoadDA3Model
nodes_differential_diffusion: DifferentialDiffusion
nodes_easycache: EasyCache, LazyCache
nodes_edit_model: ReferenceLatent
nodes_eps: Epsilon Scaling, TemporalScoreRescaling
nodes_flux: CLIPTextEncodeFlux, EmptyFlux2LatentImage, Flux2Scheduler, FluxDisableGuidance, FluxGuidance,
    FluxKVCache, FluxKontextImageScale, FluxKontextMultiReferenceLatentMethod
nodes_frame_interpolation: FrameInterpolate, FrameInterpolationModelLoader
nodes_freelunch: FreeU, FreeU_V2
nodes_fresca: FreSca
nodes_gaussian_splat: CreateCameraInfo, File3DToSplat, GetSplatCount, MergeSplat, RenderSplat, SplatToFile3D,
    SplatToMesh, TransformSplat
nodes_gits: GITSScheduler
nodes_glsl: GLSLShader
nodes_hidream: CLIPTextEncodeHiDream, QuadrupleCLIPLoader
nodes_hidream_o1: EmptyHiDreamO1LatentImage, HiDreamO1PatchSeamSmoothing, HiDreamO1ReferenceImages
nodes_hooks: CombineHooks2, CombineHooks4, CombineHooks8, ConditioningSetDefaultCombine, ConditioningSetProperties,
    ConditioningSetPropertiesAndCombine, ConditioningTimestepsRange, CreateHookKeyframe,
    CreateHookKeyframesFromFloats, CreateHookKeyframesInterpolated, CreateHookLora, CreateHookLoraModelOnly,
    CreateHookModelAsLora, CreateHookModelAsLoraModelOnly, PairConditioningCombine,
    PairConditioningSetDefaultCombine, PairConditioningSetProperties, PairConditioningSetPropertiesAndCombine,
    SetClipHooks, SetHookKeyframes
nodes_hunyuan: CLIPTextEncodeHunyuanDiT, EmptyHunyuanImageLatent, EmptyHunyuanLatentVideo,
    EmptyHunyuanVideo15Latent, HunyuanImageToVideo, HunyuanRefinerLatent, HunyuanVideo15ImageToVideo,
    HunyuanVideo15LatentUpscaleWithModel, HunyuanVideo15SuperResolution, LatentUpscaleModelLoader,
    TextEncodeHunyuanVideo_ImageToVideo
nodes_hunyuan3d: EmptyLatentHunyuan3Dv2, Hunyuan3Dv2Conditioning, Hunyuan3Dv2ConditioningMultiView,
    VAEDecodeHunyuan3D, VoxelToMesh, VoxelToMeshBasic
nodes_hypernetwork: HypernetworkLoader
nodes_hypertile: HyperTile
nodes_ideogram4: Ideogram4Scheduler
nodes_image_compare: ImageCompare
nodes_images: GetImageSize, ImageAddNoise, ImageCrop, ImageCropV2, ImageFlip, ImageFromBatch, ImageMergeTileList,
    ImageRotate, ImageScaleToMaxDimension, ImageStitch, PrimitiveBoundingBox, RepeatImageBatch, ResizeAndPadImage,
    SaveAnimatedPNG, SaveAnimatedWEBP, SaveImageAdvanced, SaveSVGNode, SplitImageToTileList
nodes_ip2p: InstructPixToPixConditioning
nodes_joyimage: TextEncodeJoyImageEdit
nodes_json_prompt: BuildJsonPromptIdeogram
nodes_kandinsky5: CLIPTextEncodeKandinsky5, Kandinsky5ImageToVideo, NormalizeVideoLatentStart
nodes_latent: LatentAdd, LatentApplyOperation, LatentApplyOperationCFG, LatentBatch, LatentBatchSeedBehavior,
    LatentConcat, LatentCut, LatentCutToBatch, LatentInterpolate, LatentMultiply, LatentOperationSharpen,
    LatentOperationTonemapReinhard, LatentSubtract, ReplaceVideoLatentFrames
nodes_load_3d: Load3D, Load3DAdvanced, Preview3D, Preview3DAdvanced, PreviewGaussianSplat, PreviewPointCloud
nodes_logic: ComfyAndNode, ComfyNotNode, ComfyOrNode, ComfySwitchNode, CustomCombo
nodes_lora_debug: LoraLoaderBypass, LoraLoaderBypassModelOnly
nodes_lora_extract: LoraSave
nodes_lotus: LotusConditioning
nodes_lt: EmptyLTXVLatentVideo, GetICLoRAParameters, LTXVAddGuide, LTXVConcatAVLatent, LTXVConditioning,
    LTXVCropGuides, LTXVImgToVideo, LTXVImgToVideoInplace, LTXVPreprocess, LTXVReferenceAudio, LTXVScheduler,
    LTXVSeparateAVLatent, ModelSamplingLTXV
nodes_lt_audio: LTXAVTextEncoderLoader, LTXVAudioVAEDecode, LTXVAudioVAEEncode, LTXVAudioVAELoader,
    LTXVEmptyLatentAudio
nodes_lt_upsampler: LTXVLatentUpsampler
nodes_lumina2: CLIPTextEncodeLumina2, RenormCFG
nodes_mage: TextEncodeMageFlowEdit
nodes_mahiro: Mahiro
nodes_mask: CropMask, FeatherMask, GrowMask, ImageColorToMask, ImageCompositeMasked, ImageToMask, InvertMask,
    LatentCompositeMasked, MaskComposite, MaskPreview, MaskToImage, SolidMask, ThresholdMask
nodes_math: ComfyMathExpression
nodes_mediapipe: LoadMediaPipeFaceLandmarker, MediaPipeFaceLandmarker, MediaPipeFaceMask, MediaPipeFaceMeshVisualize
nodes_minimax_h3: EmptyMiniMaxH3LatentAV, MiniMaxH3ImageToVideo, MiniMaxH3ReferenceToVideo, MiniMaxH3SigmaShift
nodes_mochi: EmptyMochiLatentVideo
nodes_model_advanced: ModelComputeDtype, ModelNoiseScale, ModelSamplingAuraFlow, ModelSamplingContinuousEDM,
    ModelSamplingContinuousV, ModelSamplingDiscrete, ModelSamplingFlux, ModelSamplingSD3,
    ModelSamplingStableCascade, RescaleCFG
nodes_model_downscale: PatchModelAddDownscale
nodes_model_merging: CLIPMergeAdd, CLIPMergeSimple, CLIPMergeSubtract, CLIPSave, CheckpointSave, ModelMergeAdd,
    ModelMergeBlocks, ModelMergeSimple, ModelMergeSubtract, ModelSave, VAESave
nodes_model_merging_model_specific: ModelMergeAuraflow, ModelMergeCosmos14B, ModelMergeCosmos7B,
    ModelMergeCosmosPredict2_14B, ModelMergeCosmosPredict2_2B, ModelMergeFlux1, ModelMergeKrea2, ModelMergeLTXV,
    ModelMergeMochiPreview, ModelMergeQwenImage, ModelMergeSD1, ModelMergeSD2, ModelMergeSD35_Large,
    ModelMergeSD3_2B, ModelMergeSDXL, ModelMergeWAN2_1
nodes_model_patch: AnimaLLLiteApply, ModelPatchLoader, QwenImageDiffsynthControlnet, SUPIRApply, USOStyleReference,
    WanUni3CControlnetApply, ZImageFunControlnet
nodes_moge: LoadMoGeModel, MoGeInference, MoGePanoramaInference, MoGePointMapToMesh, MoGeRender
nodes_morphology: ImageRGBToYUV, ImageYUVToRGB, Morphology
nodes_multigpu: MultiGPU_WorkUnits, SelectCLIPDevice, SelectModelDevice, SelectVAEDevice
nodes_nag: NAGuidance
nodes_nop: wanBlockSwap
nodes_number_convert: ComfyNumberConvert
nodes_optimalsteps: OptimalStepsScheduler
nodes_pag: PerturbedAttentionGuidance
nodes_painter: Painter
nodes_perpneg: PerpNeg, PerpNegGuider
nodes_photomaker: PhotoMakerEncode, PhotoMakerLoader
nodes_pid: PiDConditioning
nodes_pixart: CLIPTextEncodePixArtAlpha
nodes_post_processing: BatchImagesNode, BatchLatentsNode, BatchMasksNode, ColorTransfer, ImageBlend, ImageBlur,
    ImageQuantize, ImageScaleToTotalPixels, ImageSharpen, ResizeImageMaskNode
nodes_preview_any: PreviewAny
nodes_primitive: PrimitiveBoolean, PrimitiveFloat, PrimitiveInt, PrimitiveString, PrimitiveStringMultiline
nodes_qwen: EmptyQwenImageLayeredLatentImage, TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus
nodes_rebatch: RebatchImages, RebatchLatents
nodes_resolution: ResolutionSelector
nodes_rope: ScaleROPE
nodes_rtdetr: DrawBBoxes, RTDETR_detect
nodes_sag: SelfAttentionGuidance
nodes_sam3: SAM3_Detect, SAM3_TrackPreview, SAM3_TrackToMask, SAM3_VideoTrack
nodes_save_3d: Save3DAdvanced, SaveGLB, SaveGaussianSplat, SavePointCloud
nodes_scail: SCAIL2ColoredMask, WanSCAILToVideo
nodes_sd3: CLIPTextEncodeSD3, ControlNetApplySD3, EmptySD3LatentImage, SkipLayerGuidanceSD3, TripleCLIPLoader
nodes_sdpose: CropByBBoxes, SDPoseDrawKeypoints, SDPoseFaceBBoxes, SDPoseKeypointExtractor
nodes_sdupscale: SD_4XUpscale_Conditioning
nodes_seed: SeedNode
nodes_seedvr: SeedVR2Conditioning, SeedVR2PostProcessing, SeedVR2Preprocess, SeedVR2TemporalChunk,
    SeedVR2TemporalMerge
nodes_slg: SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
nodes_stable3d: SV3D_Conditioning, StableZero123_Conditioning, StableZero123_Conditioning_Batched
nodes_stable_cascade: StableCascade_EmptyLatentImage, StableCascade_StageB_Conditioning,
    StableCascade_StageC_VAEEncode, StableCascade_SuperResolutionControlnet
nodes_string: CaseConverter, ConvertArrayToString, ConvertDictionaryToString, JsonExtractString, RegexExtract,
    RegexMatch, RegexReplace, StringCompare, StringConcatenate, StringContains, StringFormat, StringLength,
    StringReplace, StringSubstring, StringTrim
nodes_tcfg: TCFG
nodes_text: SaveText
nodes_text_overlay: TextOverlay
nodes_textgen: TextGenerate, TextGenerateLTX2Prompt
nodes_tomesd: TomePatchModel
nodes_toolkit: CreateList
nodes_torch_compile: TorchCompileModel
nodes_train: LoraModelLoader, LossGraphNode, SaveLoRA, TrainLoraNode
nodes_triposplat: TripoSplatConditioning, TripoSplatPreprocessImage, TripoSplatSamplingPreview, VAEDecodeTripoSplat
nodes_upscale_model: ImageUpscaleWithModel, UpscaleModelLoader
nodes_video: CreateVideo, GetVideoComponents, LoadVideo, SaveVideo, SaveWEBM, Video Slice
nodes_video_model: ConditioningSetAreaPercentageVideo, ImageOnlyCheckpointLoader, ImageOnlyCheckpointSave,
    SVD_img2vid_Conditioning, VideoLinearCFGGuidance, VideoTriangleCFGGuidance
nodes_void: OpticalFlowLoader, VOIDInpaintConditioning, VOIDQuadmaskPreprocess, VOIDSampler, VOIDWarpedNoise,
    VOIDWarpedNoiseSource
nodes_wan: TrimVideoLatent, Wan22FunControlToVideo, Wan22ImageToVideoLatent, WanAnimateToVideo,
    WanCameraImageToVideo, WanFirstLastFrameToVideo, WanFunControlToVideo, WanFunInpaintToVideo,
    WanHuMoImageToVideo, WanImageToVideo, WanInfiniteTalkToVideo, WanPhantomSubjectToVideo, WanSoundImageToVideo,
    WanSoundImageToVideoExtend, WanTrackToVideo, WanVaceToVideo
nodes_wandancer: WanDancerEncodeAudio, WanDancerPadKeyframes, WanDancerPadKeyframesList, WanDancerVideo
nodes_wanmove: GenerateTracks, WanMoveConcatTrack, WanMoveTrackToVideo, WanMoveTracksFromCoords,
    WanMoveVisualizeTracks
nodes_webcam: WebcamCapture
nodes_zimage: TextEncodeZImageOmni
"""


def _names(listing: str) -> frozenset[str]:
    """The names in a list of `module: name, name, ...`, where an indented line continues the one above."""
    lines = listing.strip().replace("\n    ", " ").splitlines()
    return frozenset(name.strip() for line in lines for name in line.partition(": ")[2].split(","))


REVIEWED = _names(_BY_MODULE)
