/* Greets the world with a single write: the smallest function there is. */
#include <unistd.h>

int main(void)
{
    static const char greeting[] = "Hello, World!\n";
    const ssize_t size = sizeof greeting - 1;

    return write(STDOUT_FILENO, greeting, size) == size ? 0 : 1;
}
