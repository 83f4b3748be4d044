/* The model and its input, in flash. A model must lie at a multiple of SOFTEDGE_ALIGN, which is 16. */
    .section .rodata.model, "a"
    .balign 16
    .global model, model_end
model:
    .incbin "../minimal/src/gesture.soft"
model_end:

/* 128 times acceleration and angular rate in x, y and z, in int16: an upright row by a person unknown to
 * the model (sample 170 of the watch data's test set). */
    .section .rodata.window, "a"
    .balign 2
    .global window, window_end
window:
    .incbin "window.raw"
window_end:
