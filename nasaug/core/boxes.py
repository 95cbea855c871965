"""The columns of boxes as labels, for all that reads, moves, learns and judges them. Independent of torch.

Labels are float32 [images, most boxes, COLUMNS]: x1, y1, x2, y2 as shares of the image as viewers show it (so that
resizing leaves them alone), the class, and a flag. Rows without a box have class -1.
"""

CLASS, FLAG, COLUMNS = 4, 5, 6
SURE = 0.5  # score from which an object that a net finds is reported and drawn
PLAIN, DIFFICULT, CROWD = 0, 1, 2  # flags; a net need not find difficult objects and crowds, and may
