/* As small as a CGI program can be, so that what is measured is the server and the kernel. */
#include <stdio.h>

int main(void) {
    fputs("Content-Type: text/plain\n\nHello, World!", stdout);
    return 0;
}
