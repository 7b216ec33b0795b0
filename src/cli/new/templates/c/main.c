/* Greets whoever is named on stdin, as GREETING in the environment says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE_MAX = 200, EXIT_USAGE = 2 };

int main(void)
{
    char name[NAME_SIZE_MAX + 2];
    size_t size = fread(name, 1, sizeof name - 1, stdin);
    const char *greeting = getenv("GREETING");

    if (ferror(stdin)) {
        perror("{{name}}");
        return EXIT_FAILURE;
    }
    if (size > 0 && name[size - 1] == '\n')
        size--;
    name[size] = '\0';
    if (size > NAME_SIZE_MAX || strchr(name, '\n')) {
        fprintf(stderr, "{{name}}: one name, please, of at most %d bytes\n", NAME_SIZE_MAX);
        return EXIT_USAGE;
    }
    printf("%s, %s!\n", greeting ? greeting : "Hello", size > 0 ? name : "World");
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
