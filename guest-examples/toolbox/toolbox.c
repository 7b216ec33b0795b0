/*
 * Several small Unix commands in one module, in the manner of busybox.
 *
 * The applet is the last path segment of argv[0] or, if that is none, of argv[1]: the module
 * may be stored under an applet's name, or be called as `toolbox APPLET [ARGUMENT...]`.
 *
 * Exit status: 0 done, 1 input or output failed, 2 bad arguments, 127 no such applet; or what
 * `exit` is told.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_IO = 1, EXIT_USAGE = 2, EXIT_NO_APPLET = 127 };

extern char **environ;

/* The name of the running applet, for messages. */
static const char *self = "toolbox";

/* Input is read in blocks of this size. */
static unsigned char block[65536];

/* Prints `applet: message` to stderr and exits. */
static _Noreturn void die(int status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static _Noreturn void die(int status, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "%s: ", self);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(status);
}

/* Fills the block with what there is to read; 0 at the end of the input. */
static size_t read_block(void)
{
    ssize_t size;

    do
        size = read(STDIN_FILENO, block, sizeof block);
    while (size < 0 && errno == EINTR);
    if (size < 0)
        die(EXIT_IO, "read error: %s", strerror(errno));
    return (size_t)size;
}

static void write_out(const void *data, size_t size)
{
    if (fwrite(data, 1, size, stdout) != size)
        die(EXIT_IO, "write error: %s", strerror(errno));
}

static void flush_out(void)
{
    if (fflush(stdout) != 0)
        die(EXIT_IO, "write error: %s", strerror(errno));
}

/* For applets that take no arguments. */
static void no_arguments(char **arguments)
{
    if (*arguments)
        die(EXIT_USAGE, "unexpected argument '%s'", *arguments);
}

/* For applets that take at most one argument, which is NULL if it is not there. */
static const char *only_argument(char **arguments)
{
    if (*arguments)
        no_arguments(arguments + 1);
    return *arguments;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/*
 * Every applet gets the arguments after its name, ended by NULL, and returns the exit status.
 * What it leaves in the buffer of stdout, main writes out.
 */

static int echo_main(char **arguments)
{
    bool newline = true;

    for (; *arguments && strcmp(*arguments, "-n") == 0; arguments++)
        newline = false;
    for (char **argument = arguments; *argument; argument++) {
        if (argument != arguments)
            write_out(" ", 1);
        write_out(*argument, strlen(*argument));
    }
    if (newline)
        write_out("\n", 1);
    return 0;
}

static int cat_main(char **arguments)
{
    size_t size;

    no_arguments(arguments);
    while ((size = read_block()) > 0) {
        write_out(block, size);
        flush_out(); /* what has come in is not held back while waiting for more */
    }
    return 0;
}

static int env_main(char **arguments)
{
    no_arguments(arguments);
    for (char **variable = environ; variable && *variable; variable++) {
        write_out(*variable, strlen(*variable));
        write_out("\n", 1);
    }
    return 0;
}

/* The length of the UTF-8 sequence at the start of the text; 1 if there is no valid one. */
static size_t utf8_length(const unsigned char *text, size_t size)
{
    const unsigned char lead = text[0];
    /* The second byte's range excludes overlong forms, surrogates and what is past U+10FFFF. */
    unsigned char low = 0x80, high = 0xBF;
    size_t length;

    if (lead >= 0xC2 && lead <= 0xDF)
        length = 2;
    else if (lead >= 0xE0 && lead <= 0xEF)
        length = 3;
    else if (lead >= 0xF0 && lead <= 0xF4)
        length = 4;
    else
        return 1;

    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;

    if (size < length || text[1] < low || text[1] > high)
        return 1;
    for (size_t i = 2; i < length; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 1;
    return length;
}

static void reverse_bytes(unsigned char *text, size_t size)
{
    for (size_t i = 0; i < size / 2; i++) {
        const unsigned char byte = text[i];

        text[i] = text[size - 1 - i];
        text[size - 1 - i] = byte;
    }
}

static int rev_main(char **arguments)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t got;

    no_arguments(arguments);
    errno = 0;
    while ((got = getline(&line, &capacity, stdin)) >= 0) {
        unsigned char *text = (unsigned char *)line;
        const size_t size = (size_t)got;
        const size_t end = size > 0 && text[size - 1] == '\n' ? size - 1 : size;
        size_t step;

        /* Each character on its own, then all of them: the bytes of each are in order again. */
        for (size_t i = 0; i < end; i += step) {
            step = utf8_length(text + i, end - i);
            reverse_bytes(text + i, step);
        }
        reverse_bytes(text, end);
        write_out(text, size);
    }
    if (!feof(stdin))
        die(EXIT_IO, "read error: %s", strerror(errno));
    free(line);
    return 0;
}

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static int wc_main(char **arguments)
{
    static const char letters[] = "lwc"; /* in the order of printing */
    uint64_t counts[3] = {0};
    bool wanted[3] = {false};
    bool in_word = false;
    int shown = 0;
    size_t size;

    for (; *arguments && (*arguments)[0] == '-' && (*arguments)[1]; arguments++) {
        for (const char *option = *arguments + 1; *option; option++) {
            const char *letter = strchr(letters, *option);

            if (!letter)
                die(EXIT_USAGE, "unknown option '%s': expected -l, -w or -c", *arguments);
            wanted[letter - letters] = true;
        }
    }
    no_arguments(arguments);
    for (int i = 0; i < 3; i++)
        shown += wanted[i];
    if (shown == 0)
        shown = 3;

    while ((size = read_block()) > 0) {
        for (size_t i = 0; i < size; i++) {
            const bool space = is_space(block[i]);

            counts[0] += block[i] == '\n';
            counts[1] += !space && !in_word;
            in_word = !space;
        }
        counts[2] += size;
    }

    /* As wc prints what comes from a pipe: one count bare, several in columns. */
    for (int i = 0, column = 0; i < 3; i++)
        if (shown == 3 || wanted[i])
            printf("%s%*llu", column++ ? " " : "", shown > 1 ? 7 : 0,
                   (unsigned long long)counts[i]);
    write_out("\n", 1);
    return 0;
}

static int sleep_main(char **arguments)
{
    const time_t longest = 1000000000; /* some 31 years */
    const char *argument = only_argument(arguments);
    const char *next = argument;
    struct timespec left = {0};
    bool digits = false;

    if (!argument)
        die(EXIT_USAGE, "missing number of seconds");
    for (; is_digit(*next); next++, digits = true) {
        left.tv_sec = left.tv_sec * 10 + (*next - '0');
        if (left.tv_sec > longest)
            die(EXIT_USAGE, "'%s' is too long", argument);
    }
    if (*next == '.') {
        next++;
        /* Digits past the nanosecond count for nothing. */
        for (long unit = 100000000; is_digit(*next); next++, unit /= 10, digits = true)
            left.tv_nsec += unit * (*next - '0');
    }
    if (!digits || *next)
        die(EXIT_USAGE, "'%s' is not a number of seconds", argument);

    while (nanosleep(&left, &left) != 0)
        if (errno != EINTR)
            die(EXIT_IO, "%s", strerror(errno));
    return 0;
}

/* SHA-256, as in FIPS 180-4. */

enum { SHA256_BLOCK = 64 };

static uint32_t rotate_right(uint32_t word, int by)
{
    return word >> by | word << (32 - by);
}

static void sha256_compress(uint32_t state[8], const unsigned char *data)
{
    static const uint32_t constants[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    };
    uint32_t schedule[64];
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];

    for (int i = 0; i < 16; i++, data += 4)
        schedule[i] = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 |
                      (uint32_t)data[2] << 8 | (uint32_t)data[3];
    for (int i = 16; i < 64; i++) {
        const uint32_t x = schedule[i - 15], y = schedule[i - 2];

        schedule[i] = schedule[i - 16] + schedule[i - 7] +
                      (rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3) +
                      (rotate_right(y, 17) ^ rotate_right(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i++) {
        const uint32_t sum1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        const uint32_t sum0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        const uint32_t choice = (e & f) ^ (~e & g);
        const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
        const uint32_t step = h + sum1 + choice + constants[i] + schedule[i];

        h = g;
        g = f;
        f = e;
        e = d + step;
        d = c;
        c = b;
        b = a;
        a = step + sum0 + majority;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

static int sha256_main(char **arguments)
{
    uint32_t state[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    unsigned char pending[2 * SHA256_BLOCK]; /* less than a block, until the padding comes */
    size_t held = 0;
    uint64_t total = 0;
    size_t size;

    no_arguments(arguments);
    while ((size = read_block()) > 0) {
        const unsigned char *data = block;

        total += size;
        if (held > 0) {
            const size_t room = SHA256_BLOCK - held;
            const size_t part = size < room ? size : room;

            memcpy(pending + held, data, part);
            held += part;
            data += part;
            size -= part;
            if (held < SHA256_BLOCK)
                continue;
            sha256_compress(state, pending);
            held = 0;
        }
        for (; size >= SHA256_BLOCK; data += SHA256_BLOCK, size -= SHA256_BLOCK)
            sha256_compress(state, data);
        memcpy(pending, data, size);
        held = size;
    }

    /* The padding: a one bit, zeros, and the length in bits, to the end of a block. */
    const size_t padded = held + 1 + 8 <= SHA256_BLOCK ? SHA256_BLOCK : 2 * SHA256_BLOCK;

    memset(pending + held, 0, padded - held);
    pending[held] = 0x80;
    for (size_t i = 0; i < 8; i++)
        pending[padded - 1 - i] = (unsigned char)(total * 8 >> 8 * i);
    for (size_t at = 0; at < padded; at += SHA256_BLOCK)
        sha256_compress(state, pending + at);

    for (int i = 0; i < 8; i++)
        printf("%08lx", (unsigned long)state[i]);
    write_out("  -\n", 4);
    return 0;
}

static int exit_main(char **arguments)
{
    const char *argument = only_argument(arguments);
    const char *next = argument;
    int status = 0;

    if (!argument)
        return 0;
    for (; is_digit(*next) && status <= 255; next++)
        status = status * 10 + (*next - '0');
    if (next == argument || *next || status > 255)
        die(EXIT_USAGE, "'%s' is not an exit status from 0 to 255", argument);
    return status;
}

struct applet {
    const char *name;
    int (*main)(char **arguments);
    const char *usage;
};

static const struct applet applets[] = {
    {"echo", echo_main, "echo [-n] [WORD...]   print the words; with -n no newline after them"},
    {"cat", cat_main, "cat                   copy the input"},
    {"env", env_main, "env                   print the environment"},
    {"rev", rev_main, "rev                   reverse each line"},
    {"wc", wc_main, "wc [-lwc]             count lines, words and bytes"},
    {"sleep", sleep_main, "sleep SECONDS         wait; fractions are allowed"},
    {"sha256", sha256_main, "sha256                print the SHA-256 of the input"},
    {"exit", exit_main, "exit [STATUS]         exit with the status"},
};

static const size_t applet_count = sizeof applets / sizeof applets[0];

/* The applet that the last segment of the path names, or NULL. */
static const struct applet *find_applet(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;

    for (size_t i = 0; i < applet_count; i++)
        if (strcmp(applets[i].name, name) == 0)
            return &applets[i];
    return NULL;
}

static _Noreturn void usage(const char *unknown)
{
    if (unknown)
        fprintf(stderr, "%s: no applet '%s'\n", self, unknown);
    else
        fprintf(stderr, "%s: no applet given\n", self);
    fputs("usage: toolbox APPLET [ARGUMENT...]\n", stderr);
    for (size_t i = 0; i < applet_count; i++)
        fprintf(stderr, "  %s\n", applets[i].usage);
    exit(EXIT_NO_APPLET);
}

int main(int argc, char **argv)
{
    const struct applet *applet = NULL;
    int first = 0; /* which argument names the applet */
    int status;

    for (; first < 2 && first < argc && !applet; first++)
        applet = find_applet(argv[first]);
    if (!applet)
        usage(argc > 1 ? argv[1] : NULL);

    self = applet->name;
    status = applet->main(argv + first);
    if (ferror(stdout))
        die(EXIT_IO, "write error");
    flush_out();
    return status;
}
