/*
 * Which exercise do these 2.56 seconds of a smartwatch's motion sensor show? The program of ../minimal in
 * C: `make run` runs it on an emulated Cortex-M4F. It prints the exercise, and a line with every score. With
 * STEP_ROWS defined (`make run STEP_ROWS=8`) it takes the run in steps of so many rows.
 */
#include "board.h"
#include "softedge.h"

/* The files that data.S embeds. */
extern const unsigned char model[], model_end[];
extern const int16_t window[], window_end[];

static softedge_engine engine;
/* `softedge inspect` and softedge_arena_bytes say how much a model needs. */
static unsigned char arena[12864] __attribute__((aligned(SOFTEDGE_ALIGN)));

/* Ends the program where something is wrong. */
static void check(softedge_code code)
{
    if (code != SOFTEDGE_OK) {
        print(softedge_error_text(code));
        print("\n");
        leave(1);
    }
}

static void print_label(size_t class_index)
{
    const char *text;
    size_t len;

    check(softedge_label(&engine, class_index, &text, &len));
    print_bytes(text, len);
}

int main(void)
{
    const size_t samples = (size_t)(window_end - window);
    softedge_tensor input, scores;
    size_t best;

    check(softedge_init(&engine, model, (size_t)(model_end - model), arena, sizeof arena));
    check(softedge_input(&engine, &input));
    if (input.element != SOFTEDGE_I16 || input.len != samples) {
        print("the model takes other input than this motion\n");
        leave(1);
    }
    for (size_t i = 0; i < samples; i++)
        ((int16_t *)input.values)[i] = window[i];
#ifdef STEP_ROWS
    size_t ops_left;

    check(softedge_start(&engine));
    do {
        /* What else there is to do, between two steps of a bounded length. */
        check(softedge_step(&engine, STEP_ROWS, &ops_left));
    } while (ops_left > 0);
#else
    check(softedge_run(&engine));
#endif
    check(softedge_argmax(&engine, &best));
    print_label(best);
    print("\n");

    check(softedge_scores(&engine, &scores));
    if (scores.element != SOFTEDGE_I16) {
        print("the scores are of another type than this program prints\n");
        leave(1);
    }
    for (size_t i = 0; i < scores.len; i++) {
        print_label(i);
        print(" ");
        print_number(((const int16_t *)scores.values)[i]);
        print("\n");
    }
    leave(0);
}
