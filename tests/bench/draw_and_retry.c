/* How libvirt and container engines pick a level, for comparison: two random categories, the
 * text of the level, a look into a table of the texts in use, and all again if it is there.
 * Random numbers are fetched many at a time, which is kinder than a call for each.
 *
 * Usage: draw_and_retry USED COUNT ROUNDS; prints the nanoseconds per level of each round.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define SLOTS (1u << 21)
#define CATEGORIES 1024u

static char *table[SLOTS];
static unsigned words[1024];
static unsigned next_word = 1024;

static unsigned category(void)
{
    if (next_word == 1024) {
        size_t have = 0;
        while (have < sizeof words) {
            ssize_t got = getrandom((char *)words + have, sizeof words - have, 0);
            if (got < 0)
                exit(1);
            have += (size_t)got;
        }
        next_word = 0;
    }
    return words[next_word++] % CATEGORIES;
}

static char **slot_of(const char *text)
{
    unsigned hash = 5381;
    for (const char *at = text; *at; at++)
        hash = hash * 33 + (unsigned char)*at;
    hash *= 2654435761u;
    for (hash >>= 11;; hash = (hash + 1) % SLOTS)
        if (!table[hash] || strcmp(table[hash], text) == 0)
            return &table[hash];
}

static char **allocate(void)
{
    for (;;) {
        char text[32];
        unsigned one = category(), two = category();
        if (one == two)
            continue;
        snprintf(text, sizeof text, "s0:c%u,c%u", one < two ? one : two, one < two ? two : one);
        char **slot = slot_of(text);
        if (!*slot) {
            *slot = strdup(text);
            return slot;
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long used = atol(argv[1]), count = atol(argv[2]), rounds = atol(argv[3]);
    /* In order, not at random: filling the last percents at random takes minutes. */
    unsigned *pairs = malloc(sizeof *pairs * CATEGORIES * CATEGORIES / 2);
    char ***taken = malloc(sizeof *taken * (size_t)count);
    long all = 0;
    for (unsigned low = 0; low < CATEGORIES; low++)
        for (unsigned high = low + 1; high < CATEGORIES; high++)
            pairs[all++] = low << 16 | high;
    for (long at = 0; at < used; at++) {
        /* Which are used is random: a shuffle as far as needed. */
        long other = at + (long)((category() << 10 | category()) % (unsigned)(all - at));
        unsigned pair = pairs[other];
        pairs[other] = pairs[at];
        char text[32];
        snprintf(text, sizeof text, "s0:c%u,c%u", pair >> 16, pair & 0xffff);
        *slot_of(text) = strdup(text);
    }
    for (long round = 0; round < rounds; round++) {
        struct timespec start, end;
        clock_gettime(CLOCK_MONOTONIC, &start);
        for (long at = 0; at < count; at++)
            taken[at] = allocate();
        clock_gettime(CLOCK_MONOTONIC, &end);
        printf("%.1f\n", ((double)(end.tv_sec - start.tv_sec) * 1e9 +
                          (double)(end.tv_nsec - start.tv_nsec)) / (double)count);
        /* Backwards, so that open addressing needs no marks of what was removed. */
        for (long at = count - 1; at >= 0; at--) {
            free(*taken[at]);
            *taken[at] = NULL;
        }
    }
    return 0;
}
