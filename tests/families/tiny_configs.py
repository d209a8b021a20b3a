"""Any configuration of transformers made tiny: every size it names is set small, every kind of layer is kept once."""

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 128
SMALL = {
    32: (
        "adapter_input_size adapter_in_dim adapter_out_dim hidden_size d_model n_embd emb_dim dim_model "
        "embedding_dim embed_dim embedding_size word_embed_proj_dim backbone_hidden_size input_embedding_size "
        "output_embedding_size hidden_size_global pronunciation_embed_dim shape_embed_dim lru_width "
        "attention_hidden_dim kv_lora_rank q_lora_rank ple_embed_dim out_hidden_size projector_input_dim "
        "projector_output_dim vision_output_dim input_size mamba_d_ssm router_hidden_size o_lora_rank "
        "prompt_mid_dim codebook_dim vector_quantization_hidden_dimension index_hidden_size "
    ),
    64: (
        "attention_hidden_size intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim n_inner dff d_ff dim_ff "
        "d_inner ffn_hidden_size feed_forward_size max_position_embeddings n_positions max_seq_len n_ctx "
        "context_length model_max_length max_target_positions original_max_position_embeddings "
        "intermediate_size_mlp dense_intermediate_size centroid_size classifier_proj_size rel_extent "
        "keep_window_size "
    ),
    16: (
        "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size "
        "moe_shared_expert_intermediate_size shared_intermediate_size shared_experts_intermediate_size mlp_dim "
        "hidden_size_per_layer_input laurel_rank hc_lowrank loop_gate_rank sliding_window sliding_window_size "
        "attention_window_size window_size local_attention local_attention_window_len attention_chunk_size "
        "chunk_size mamba_chunk_size block_size index_head_dim attention_head_dim adapter_rank d_rel "
        "relative_attention_num_buckets gated_norm_rank qk_head_dim mamba_headdim relative_max_distance "
        "num_buckets position_bias_num_buckets relative_attention_max_distance position_bias_max_distance "
        "num_centroids chunk_size_feed log_scaling_n_floor ngram_vocab_size_base local_attn_chunk_length "
        "lsh_attn_chunk_length linear_num_key_value_heads base_channels max_source_positions num_filters "
    ),
    8: (
        "head_dim qk_nope_head_dim qk_rope_head_dim v_head_dim linear_key_head_dim linear_value_head_dim "
        "linear_head_dim mamba_d_head mamba_head_dim d_kv kv_channels d_head dim_head swa_head_dim "
        "attention_head_size state_size ssm_state_size mamba_d_state global_head_dim rotary_dim rope_dim "
        "time_step_rank mamba_dt_rank swa_v_head_dim vocab_size_per_layer_dim "
    ),
    4: (
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
        "attention_heads num_decoder_attention_heads num_encoder_attention_heads num_experts num_local_experts "
        "n_routed_experts moe_num_experts linear_num_value_heads linear_num_heads index_n_heads "
        "swa_num_attention_heads mamba_n_heads mamba_num_heads num_query_groups index_topk index_topk_blocks "
        "index_block_size hc_sinkhorn_iters patch_size rotary_ndims conv_kernel short_conv_kernel_size "
        "linear_conv_kernel_dim mamba_d_conv conv_kernel_size ple_conv_kernel_size conv1d_width conv_L_cache "
        "split_ngram_parts hc_mult hc_count moe_num_heads prompt_length prompt_types segment_types "
        "block_multiple_of ffn_round_up_to_multiple_of centroid_intermediate_top_k codebook_size "
    ),
    2: (
        "num_key_value_heads num_kv_heads kv_n_heads linear_num_key_heads swa_num_key_value_heads "
        "num_experts_per_tok num_experts_per_token moe_k moe_topk moe_top_k n_groups n_group num_expert_group "
        "topk_group mamba_n_groups n_mamba_heads num_global_key_value_heads heads_per_ngram o_groups "
        "zero_expert_num num_codebooks num_kv_shared_layers altup_num_inputs num_blocks depth rescale_every "
        "num_random_blocks loop_num_passes num_hidden_layers num_layers n_layer n_layers decoder_layers "
        "encoder_layers num_decoder_layers num_encoder_layers num_global_layers global_attn_every_n_layers "
        "sliding_window_pattern _sliding_window_pattern no_rope_layer_interval attn_layer_period "
        "expert_layer_period layer_group_size max_window_layers number_of_conv_states num_layers_per_stack "
        "n_layers_per_attn_res_block linear_num_kv "
    ),
    1: (
        "attn_layer_offset first_k_dense_replace num_shared_experts n_shared_experts moe_num_shared_experts "
        "expert_layer_offset eoa num_memory_blocks moe_layer_start_index moe_layer_end_index loop_layer_index_end "
        "n_input_layers n_recurrent_layers n_output_layers num_hash_layers "
    ),
    VOCABULARY: (
        "vocab_size decoder_vocab_size vocab_size_per_layer_input unpadded_vocab_size audio_vocab_size "
        "pronunciation_vocab_size shape_vocab_size encoder_hash_byte_group_vocab "
    ),
    0: (
        "pad_token_id loop_layer_index_start "
    ),
}  # fmt: skip
SIZES = {name: size for size, names in SMALL.items() for name in names.split()}
LISTS = (
    "layer_types",
    "mlp_layer_types",
    "layers_block_type",
    "block_types",
    "attn_layers",
    "attention_layers",
    "indexer_types",
)


def tiny_config(name: str):
    config_class = CONFIG_MAPPING[name]
    return config_class(**tiny(config_class, MADE_BY_HAND.get(name, {})))


def tiny(config_class, by_hand: dict) -> dict:
    given = {key: value for key, value in by_hand.items() if key not in config_class.sub_configs}
    default = config_class(**{key: by_hand[key] for key in NEEDED & by_hand.keys()}).to_dict()
    depth = given.get("num_hidden_layers") or max([2, *(len(set(default.get(key) or ())) for key in LISTS)])
    changed = {}
    for key, value in default.items():
        sub_class = config_class.sub_configs.get(key)
        if sub_class is not None and isinstance(value, dict):
            if sub_class.__name__ == "AutoConfig":
                sub_class = CONFIG_MAPPING[value["model_type"]]
            changed[key] = tiny(sub_class, by_hand.get(key, {}))
        elif key in LISTS and value:
            kinds = list(dict.fromkeys(value))
            changed[key] = (kinds * depth)[:depth]
        elif isinstance(value, bool) or value is None:
            continue
        elif isinstance(value, int) and key in SIZES:
            changed[key] = SIZES[key]
        elif key.endswith(("_token_id", "_token_index")) and isinstance(value, (int, list)):
            changed[key] = {"bos_token_id": 1, "eos_token_id": 2}.get(key, VOCABULARY - 1)
    for key in (
        "num_hidden_layers",
        "num_layers",
        "n_layer",
        "n_layers",
        "decoder_layers",
        "num_decoder_layers",
        "num_blocks",
    ):
        if key in changed:
            changed[key] = depth
    if "kv_lora_rank" in default:  # multi-head latent attention has as many keys as queries
        changed["num_key_value_heads"] = changed["num_attention_heads"]
    if default.get("is_decoder") is False:
        changed["is_decoder"] = True  # a checkpoint that is meant as a language model says so
    return changed | given


NEEDED = {"text_config"}  # without them some configurations cannot even be made

MIXED = ["sliding_attention", "full_attention"]
SHARED = {
    "layer_types": MIXED * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "head_dim": 8, "global_head_dim": 8,
}  # fmt: skip
EXPERTS = {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16}
DOTS3 = {
    f"swa_{name}": size
    for name, size in {
        "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "head_dim": 16,
        "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    }.items()
} | {"head_dim": 16}  # fmt: skip
INDEXER = {
    "head_dim": 8,    "indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 16, "indexer_compress_ratio": 4,
}  # fmt: skip
LOOP = {"n_layers_per_attn_res_block": 2, "num_hidden_layers": 6, "layer_types": ["hybrid_sliding", "hybrid"] * 3}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
GEMMA3N = {
    "layer_types": MIXED * 2, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": [64] * 4,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
}  # fmt: skip
ZAMBA = ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid", "linear_attention"]
MADE_BY_HAND = {
    "bamba": MAMBA | {"attn_layer_indices": [1], "num_hidden_layers": 2},
    "cohere_compass_text": {
        "layer_types": MIXED, "num_hidden_layers": 2,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in MIXED},
    },
    "dbrx": {"attn_config": {"rope_theta": 1e4, "clip_qkv": 8.0}},
    "dory": {
        "num_hidden_layers": 6, "n_input_layers": 2, "n_recurrent_layers": 2, "n_output_layers": 2,
        "layer_types": ["sliding_attention", "mlp", "full_attention", "mlp", "sliding_attention", "mlp"],
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots3_note": {"text_config": DOTS3},
    "dots3_note_text": DOTS3,
    "gemma3n": {"text_config": GEMMA3N},
    "gemma3n_text": GEMMA3N,
    "gemma4": {"text_config": SHARED | EXPERTS},
    "gemma4_text": SHARED | EXPERTS,
    "gemma4_unified": {"text_config": SHARED},
    "gemma4_unified_text": SHARED,
    "gemma4_assistant": {
        "text_config": SHARED
        | {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 4, "vocab_size_per_layer_input": 0}
    },
    "got_ocr2": {"vision_config": {"image_size": 64, "output_channels": 16}},
    "granitemoehybrid": MAMBA | {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "inkling2_loop_text": LOOP | {"loop_layer_index_start": 2, "loop_layer_index_end": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "ministral": {"head_dim": 8},
    "mllama": {"text_config": {"cross_attention_layers": [1], "num_hidden_layers": 3}},
    "nemotron": {"num_key_value_heads": 2},
    "phi4_multimodal": {
        "audio_config": {"nemo_conv_channels": 16, "ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32},
        "vision_config": {"crop_size": 16, "image_size": 16},
    },
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "reformer": {
        "axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"], "num_hidden_layers": 2,
        "num_buckets": 4, "attention_head_size": 8,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layers_block_type": ZAMBA, "num_hidden_layers": len(ZAMBA), "attention_head_dim": 16},
    "zamba2": {"layers_block_type": ZAMBA, "num_hidden_layers": len(ZAMBA), "n_mamba_heads": 4, "attention_head_dim": 16},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
