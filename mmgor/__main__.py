"""python -m mmgor"""

from mmgor.cli.main import main

if __name__ == '__main__':
    main()
