/*
 * softedge: softmax-free transformers (SOFT) in integers, on microcontrollers. No heap, no floats.
 *
 * Made from src/capi.rs by cbindgen; cbindgen.toml says how. Do not edit.
 *
 * Every function says by its code how it went, and writes nothing where the code is not SOFTEDGE_OK. Null
 * and misaligned pointers, lengths that no memory has, memory that overlaps and an engine that was never
 * made are refused. What no callee can check is the caller's:
 *
 * - A pointer that is not null points to as much memory as the length beside it says, or to one value of
 *   its type.
 * - From softedge_init on, file and arena stay where they are, the file unchanged, the arena touched
 *   through the pointers that the engine gives only.
 * - An engine is used by one thread or interrupt at a time.
 */

#ifndef SOFTEDGE_H
#define SOFTEDGE_H

#include <stddef.h>
#include <stdint.h>

/**
 * Alignment in bytes of a model file and of an arena.
 */
#define SOFTEDGE_ALIGN 16

/**
 * Words of an engine.
 */
#define SOFTEDGE_ENGINE_WORDS 24

/**
 * How a call went. The numbers never change; up to SOFTEDGE_ARENA_TAKEN they are the errors of the Rust
 * library.
 */
enum softedge_code
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * All is well.
   */
  SOFTEDGE_OK = 0,
  /**
   * The bytes end before the file does.
   */
  SOFTEDGE_TRUNCATED = 1,
  /**
   * The bytes do not start with the magic of a .soft file.
   */
  SOFTEDGE_NOT_A_MODEL = 2,
  /**
   * The file is of a version this library does not read.
   */
  SOFTEDGE_VERSION = 3,
  /**
   * The checksum does not match: some byte changed since the file was written.
   */
  SOFTEDGE_CHECKSUM = 4,
  /**
   * The file, the arena or another pointer is not aligned.
   */
  SOFTEDGE_MISALIGNED = 5,
  /**
   * A header, tensor or metadata field that no writer produces; or bytes after the end of the file.
   */
  SOFTEDGE_MALFORMED = 6,
  /**
   * An op whose operands do not fit its shape or each other.
   */
  SOFTEDGE_OP = 7,
  /**
   * The model uses an op that this library does not run: it is not an integer model.
   */
  SOFTEDGE_UNSUPPORTED_OP = 8,
  /**
   * The arena is smaller than the model needs.
   */
  SOFTEDGE_TOO_SMALL = 9,
  /**
   * A program writes to memory that was handed over for reading only.
   */
  SOFTEDGE_READ_ONLY = 10,
  /**
   * The scores are no integers.
   */
  SOFTEDGE_ELEMENT_TYPE = 11,
  /**
   * The arena is already in use.
   */
  SOFTEDGE_ARENA_TAKEN = 12,
  /**
   * A pointer is null.
   */
  SOFTEDGE_NULL = 100,
  /**
   * A length that no memory has.
   */
  SOFTEDGE_LENGTH = 101,
  /**
   * File, arena and engine share bytes.
   */
  SOFTEDGE_OVERLAP = 102,
  /**
   * The engine was not made by softedge_init, or making it failed.
   */
  SOFTEDGE_NO_ENGINE = 103,
  /**
   * There is no such class, or the model carries no labels.
   */
  SOFTEDGE_NO_LABEL = 104,
  /**
   * No run in steps has begun, or it was given up.
   */
  SOFTEDGE_NO_RUN = 105,
  /**
   * A run in steps is not over.
   */
  SOFTEDGE_UNFINISHED = 106,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum softedge_code softedge_code;
#else
typedef int32_t softedge_code;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Type of an element.
 */
enum softedge_type
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * float
   */
  SOFTEDGE_F32 = 0,
  /**
   * int32_t
   */
  SOFTEDGE_I32 = 1,
  /**
   * int16_t
   */
  SOFTEDGE_I16 = 2,
  /**
   * int8_t
   */
  SOFTEDGE_I8 = 3,
  /**
   * uint8_t
   */
  SOFTEDGE_U8 = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum softedge_type softedge_type;
#else
typedef int32_t softedge_type;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * One model on one arena. Made by softedge_init in memory of the caller's; zeros are an engine that was
 * not made yet. Nothing needs to be freed.
 */
typedef struct softedge_engine {
  /**
   * Not for the caller.
   */
  size_t words[SOFTEDGE_ENGINE_WORDS];
} softedge_engine;

/**
 * A model's raw input or its scores, in the arena.
 */
typedef struct softedge_tensor {
  /**
   * The elements.
   */
  void *values;
  /**
   * Number of elements.
   */
  size_t len;
  /**
   * Number of bytes.
   */
  size_t bytes;
  /**
   * Type of the elements.
   */
  softedge_type element;
  /**
   * Real value of one unit.
   */
  float scale;
} softedge_tensor;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Checks the model in `len` bytes at `file`, which must lie at a multiple of SOFTEDGE_ALIGN: every byte of
 * it, so that nothing can go wrong while it runs.
 */
softedge_code softedge_check(const void *file, size_t len);

/**
 * Bytes of arena that the model needs. Checks it first, as softedge_check does.
 */
softedge_code softedge_arena_bytes(const void *file, size_t len, size_t *bytes);

/**
 * Checks the model, as softedge_check does, and makes an engine of it with `arena_len` bytes at `arena`: at
 * a multiple of SOFTEDGE_ALIGN, and as many as softedge_arena_bytes says or more. The file is read in
 * place, so it can stay in flash. File and arena belong to the engine from now on.
 */
softedge_code softedge_init(struct softedge_engine *engine,
                            const void *file,
                            size_t len,
                            void *arena,
                            size_t arena_len);

/**
 * The raw input, to be written before every run: its bytes are reused while the model runs. A run in steps that is
 * not over is given up.
 */
softedge_code softedge_input(struct softedge_engine *engine, struct softedge_tensor *input);

/**
 * Runs the model on its input.
 */
softedge_code softedge_run(struct softedge_engine *engine);

/**
 * Begins a run of the model on its input that goes on by softedge_step, so that the firmware can do something else
 * in between. One that was not over is given up.
 */
softedge_code softedge_start(struct softedge_engine *engine);

/**
 * Goes on with the run that softedge_start began by at most `rows` rows, at least 1, of one op. `ops_left` says how
 * many ops are not done: 0 when the run is over. A row is a token of a linear layer, a pixel of a convolution and so
 * on; what it costs is told for each op by the Rust library, at engine::Steps.
 */
softedge_code softedge_step(struct softedge_engine *engine, size_t rows, size_t *ops_left);

/**
 * Computes what is left of the run that softedge_start began. Its scores are those of softedge_run, bit for bit.
 */
softedge_code softedge_finish(struct softedge_engine *engine);

/**
 * The scores of the last run, one per class: logits, in units of their scale. They stay until the input is
 * written or the next run begins.
 */
softedge_code softedge_scores(struct softedge_engine *engine, struct softedge_tensor *scores);

/**
 * The class with the largest score of the last run; the first of equals.
 */
softedge_code softedge_argmax(const struct softedge_engine *engine, size_t *class_index);

/**
 * The name of a class: `len` bytes of UTF-8 at `text`, in the file, without a NUL at their end.
 */
softedge_code softedge_label(const struct softedge_engine *engine, size_t class_index, const char **text, size_t *len);

/**
 * What a code means and what to do about it; never null, with a NUL at its end.
 */
const char *softedge_error_text(int32_t code);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SOFTEDGE_H */
