"""What is no decoder-only transformer: encoders, encoder-decoders, state-space and recurrent models."""

from __future__ import annotations

from mfuroof.models.fields import Fields

__all__ = ["FOREIGN", "refuse_foreign"]

_ENCODERS = """
albert audio-spectrogram-transformer beit bert big_bird camembert canine clip clip_text_model clip_vision_model convbert
convnext data2vec-text deberta deberta-v2 deit detr dinov2 dinov3_vit distilbert electra ernie ernie_m esm eurobert
flaubert fnet funnel hubert ibert layoutlm layoutlmv2 layoutlmv3 lilt longformer luke mega megatron-bert mobilebert
modernbert mpnet mra neobert new nomic_bert nystromformer qdqbert rembert resnet roberta roberta-prelayernorm roc_bert
roformer sam siglip siglip_text_model siglip_vision_model splinter squeezebert swin tapas unispeech vit wav2vec2 wavlm
xlm xlm-roberta xlm-roberta-xl xmod yoso
"""
_ENCODER_DECODERS = """
bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder florence2 fsmt led longt5 m2m_100 marian mbart
moonshine mt5 mvp nllb-moe pegasus pegasus_x pix2struct plbart prophetnet seamless_m4t seamless_m4t_v2
speech-encoder-decoder speech_to_text speecht5 switch_transformers t5 t5gemma trocr udop umt5 vision-encoder-decoder
whisper xlm-prophetnet
"""
_RECURRENT = """
delta_net falcon_mamba gated_deltanet gla hgrn hgrn2 mamba mamba2 retnet rwkv rwkv5 rwkv6 rwkv6qwen2 rwkv7 ttt xlstm
"""

FOREIGN: dict[str, str] = {
    **dict.fromkeys(_ENCODERS.split(), "an encoder"),
    **dict.fromkeys(_ENCODER_DECODERS.split(), "an encoder-decoder"),
    **dict.fromkeys(_RECURRENT.split(), "a state-space or recurrent model"),
}
"""What the ``model_type`` of a Hugging Face config stands for, where it is no decoder with attention."""

_HEADS = (
    "ForMaskedLM",
    "ForPreTraining",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForImageClassification",
    "ForAudioClassification",
    "ForCTC",
    "ForSeq2SeqLM",
    "ForSpeechSeq2Seq",
    "EncoderModel",
)
"""Endings of ``architectures`` that say of an unknown type that it does not generate text token by token."""


def refuse_foreign(f: Fields, kind: str, *, known: bool) -> None:
    """Raise `ConfigError` for a config that is no decoder-only language model, whatever else its keys look like.

    A ``known`` type may stand under a head for classification: its layers are a decoder's all the same.
    """
    what = FOREIGN.get(kind)
    listed = f.raw("architectures")
    heads = [a for a in listed if isinstance(a, str) and a.endswith(_HEADS)] if isinstance(listed, list) else []
    if what:
        f.problems.add("model_type", repr(kind), f"a decoder-only language model ({kind} is {what})")
    elif heads and not known:
        f.problems.add("architectures", repr(heads[0]), "a decoder-only language model, such as ...ForCausalLM")
    else:
        for key in ("is_encoder_decoder", "add_cross_attention", "cross_attention_layers"):
            f.refuse(key, "a decoder-only model")
    f.finish_early()
